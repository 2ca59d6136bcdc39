"""An OIDC issuer as a process of its own: `python issuer_process.py PORT FOLDER`.

Serves `FOLDER/keys.json` as its keys. While `FOLDER/mode` holds `hang`, it accepts and never answers.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(port: int, folder: Path) -> None:
    base = f"http://127.0.0.1:{port}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while (folder / "mode").read_text() == "hang":
                time.sleep(0.05)
            if self.path == "/.well-known/openid-configuration":
                body = json.dumps({"issuer": base, "jwks_uri": f"{base}/keys"}).encode()
            else:
                body = (folder / "keys.json").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            with (folder / "requests").open("a") as file:
                file.write(f"{self.path}\n")

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
