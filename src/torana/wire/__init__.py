"""A lean HTTP/1.1 client: one asyncio protocol per connection, parsed by httptools, pooled.

It exists because of the hot path: a general client costs more than the rest of a relayed request
(docs/decisions/0003). It does what model calls need and no more: one request at a time on a connection, a body in
memory, HTTP proxies; no redirects, no cookies, no decompression. Everything a provider can do wrong ends in one of
four errors; a connection on which anything unasked arrives is never used again.

client.py      send a request, read the answer
connection.py  one connection and the one answer that may be under way on it
pool.py        connections at rest
target.py      a URL taken apart, and the bytes of a request's head
endpoint.py    URLs that clients give: what is wrong with them, and the operator's list
addresses.py   host names → addresses, remembered or checked
proxies.py     which proxy leads to a URL
"""
