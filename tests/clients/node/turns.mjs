// One conversation for each way that GitLab's provider reaches a gateway. Prints one JSON line a turn.
// The caller checks them: this file only does what an agent does.
import { createGitLab } from '@gitlab/gitlab-ai-provider';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';

const gitlab = createGitLab({
  instanceUrl: process.env.INSTANCE_URL,
  aiGatewayUrl: process.env.GATEWAY_URL,
  apiKey: 'personal-access-token',
  featureFlags: { duo_agent_platform: true },
});

const weather = tool({
  description: 'The weather of a town',
  inputSchema: jsonSchema({ type: 'object', properties: { town: { type: 'string' } }, required: ['town'] }),
  execute: async ({ town }) => `Snow in ${town}`,
});

const say = (turn, facts) => console.log(JSON.stringify({ turn, ...facts }));

for (const model of process.argv.slice(2)) {
  const whole = await generateText({ model: gitlab.agenticChat(model), prompt: 'Hello', maxRetries: 0 });
  say(`${model} whole`, { text: whole.text, finish: whole.finishReason, usage: whole.usage });

  const streamed = streamText({ model: gitlab.agenticChat(model), prompt: 'Hello', maxRetries: 0 });
  const pieces = [];
  for await (const piece of streamed.textStream) pieces.push(piece);
  say(`${model} streamed`, { pieces, finish: await streamed.finishReason, usage: await streamed.usage });

  const steps = await generateText({
    model: gitlab.agenticChat(model),
    prompt: 'How is the weather?',
    tools: { weather },
    stopWhen: stepCountIs(2),
    maxRetries: 0,
  });
  say(`${model} tool`, {
    calls: steps.steps.flatMap((step) => step.toolCalls.map(({ toolName, input }) => ({ toolName, input }))),
    results: steps.steps.flatMap((step) => step.toolResults.map(({ output }) => output)),
    text: steps.text,
  });
}
