// The vendors' own SDKs, with a token of the gateway's in place of a key. Prints one JSON line a turn.
// The caller scripts what the vendor answers, and checks the lines: this file only does what a program does.
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const { GATEWAY_URL, TOKEN } = process.env;
const openai = new OpenAI({ apiKey: TOKEN, baseURL: `${GATEWAY_URL}/openai/v1`, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: TOKEN, baseURL: `${GATEWAY_URL}/anthropic`, maxRetries: 0 });

const messages = [{ role: 'user', content: 'Hello' }];
const schema = { type: 'object', properties: { town: { type: 'string' } }, required: ['town'] };
const weather = { name: 'weather', description: 'The weather of a town', parameters: schema };
const say = (turn, facts) => console.log(JSON.stringify({ turn, ...facts }));
const told = (error) => ({ name: error.constructor.name, status: error.status, id: Boolean(error.requestID) });

for (const model of process.argv.slice(2)) {
  const whole = await openai.chat.completions.create({ model, messages });
  say(`${model} chat`, { text: whole.choices[0].message.content, tokens: whole.usage.total_tokens });

  const pieces = [];
  for await (const chunk of await openai.chat.completions.create({ model, messages, stream: true })) {
    if (chunk.choices[0].delta.content) pieces.push(chunk.choices[0].delta.content);
  }
  say(`${model} chat streamed`, { pieces });

  const called = await openai.chat.completions
    .stream({ model, messages, tools: [{ type: 'function', function: weather }] })
    .finalChatCompletion();
  const calls = called.choices[0].message.tool_calls;
  say(`${model} chat tools`, { towns: calls.map((call) => JSON.parse(call.function.arguments).town) });
  const results = calls.map((call) => ({ role: 'tool', tool_call_id: call.id, content: 'Snow' }));
  const answered = await openai.chat.completions.create({
    model, messages: [...messages, called.choices[0].message, ...results],
  });
  say(`${model} chat answered`, { text: answered.choices[0].message.content });

  const response = await openai.responses.create({ model, input: 'Hello', store: false });
  say(`${model} response`, { text: response.output_text, tokens: response.usage.total_tokens });
  const events = openai.responses.stream({ model, input: 'Hello', store: false });
  const deltas = [];
  for await (const event of events) if (event.type === 'response.output_text.delta') deltas.push(event.delta);
  say(`${model} response streamed`, { pieces: deltas, text: (await events.finalResponse()).output_text });

  const message = await anthropic.messages.create({ model, max_tokens: 64, messages });
  say(`${model} message`, { text: message.content[0].text, tokens: message.usage.output_tokens });
  const stream = anthropic.messages.stream({
    model, max_tokens: 64, messages, tools: [{ name: 'weather', description: 'x', input_schema: schema }],
  });
  const { content, stop_reason } = await stream.finalMessage();
  const uses = content.filter((block) => block.type === 'tool_use');
  say(`${model} message tools`, { towns: uses.map((use) => use.input.town), stop_reason });
  const count = await anthropic.messages.countTokens({ model, messages });
  say(`${model} count`, { counted: count.input_tokens > 0 });

  await openai.chat.completions.create({ model, messages }).catch((error) => say(`${model} limited`, told(error)));
  await anthropic.messages
    .create({ model, max_tokens: 64, messages })
    .catch((error) => say(`${model} overloaded`, told(error)));
  const broken = async () => {
    for await (const _ of await openai.chat.completions.create({ model, messages, stream: true }));
  };
  await broken().then(() => say(`${model} broken`, { raised: false }), () => say(`${model} broken`, { raised: true }));
}

const vectors = await openai.embeddings.create({ model: 'text_embedding_3_small', input: ['a', 'b'] });
say('embeddings', { lengths: vectors.data.map((row) => row.embedding.length) });
const names = [];
for await (const model of openai.models.list()) names.push(model.id);
const theirs = [];
for await (const model of anthropic.models.list({ limit: 3 })) theirs.push(model.id);
say('models', { same: names.join() === theirs.join(), some: names.length > 5 });
const nobody = new OpenAI({ apiKey: 'nonsense', baseURL: `${GATEWAY_URL}/openai/v1`, maxRetries: 0 });
await nobody.models.list().catch((error) => say('stranger', { ...told(error), code: error.code }));
