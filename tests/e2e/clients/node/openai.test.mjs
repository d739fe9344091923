// The openai SDK for Node, unmodified, against a running Tuneport; tests/e2e/clients/test_node.py starts it.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.env.TUNEPORT_BASE_URL, apiKey: process.env.TUNEPORT_API_KEY, maxRetries: 0 });
const model = "SmolLM2-135M-Instruct";
const messages = [{ role: "user", content: "What is the capital of France?" }];
const PARIS = "The capital of France is Paris.";

test("answers, whole and streamed", async () => {
  const whole = await client.chat.completions.create({ model, messages, temperature: 0 });
  assert.equal(whole.choices[0].message.content, PARIS);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model, messages, temperature: 0, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, PARIS);
  const stream = client.chat.completions.stream({ model, messages, temperature: 0 });
  assert.equal(await stream.finalContent(), PARIS);
});

test("parses structured answers", async () => {
  const City = z.object({ name: z.string(), country: z.string() });
  const completion = await client.chat.completions.parse({
    model,
    messages: [{ role: "user", content: "Ann lives in Rome, Italy." }],
    response_format: zodResponseFormat(City, "city"),
    temperature: 0,
    max_tokens: 100,
  });
  City.parse(completion.choices[0].message.parsed);
});

test("runs tools", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools(
    {
    model,
    tool_choice: "required",
    parallel_tool_calls: false,
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    temperature: 0,
    max_tokens: 60,
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          description: "The weather of a city",
          parameters: {
            type: "object",
            properties: { city: { type: "string" } },
            required: ["city"],
            additionalProperties: false,
          },
          parse: JSON.parse,
          function: ({ city }) => {
            asked.push(city);
            return "Rain, 7 degrees.";
          },
        },
      },
    ],
    },
    { maxChatCompletions: 2 },
  );
  await runner.done();
  assert.ok(asked.length > 0, "the tool was called");
  assert.ok(runner.messages.some((message) => message.role === "tool"));
});

test("responses, kept and streamed", async () => {
  const input = "What is the capital of France?";
  const first = await client.responses.create({ model, input, temperature: 0 });
  assert.equal(first.output_text, PARIS);
  assert.equal((await client.responses.retrieve(first.id)).output_text, PARIS);
  const stream = client.responses.stream({ model, input, temperature: 0 });
  assert.equal((await stream.finalResponse()).output_text, PARIS);
});

test("embeddings, decoded from base64 by the SDK", async () => {
  const answer = await client.embeddings.create({ model: "all-MiniLM-L6-v2", input: "a cat" });
  assert.equal(answer.data[0].embedding.length, 384);
  const norm = answer.data[0].embedding.reduce((sum, x) => sum + x * x, 0);
  assert.ok(Math.abs(norm - 1) < 1e-3);
});

test("lists, files and fine-tuning jobs", async () => {
  const names = [];
  for await (const entry of client.models.list()) names.push(entry.id);
  assert.ok(names.includes(model));
  const file = await client.files.create({ file: await OpenAI.toFile(Buffer.from("{}\n"), "x.jsonl"), purpose: "user_data" });
  assert.equal(await (await client.files.content(file.id)).text(), "{}\n");
  await client.files.delete(file.id);
  const jobs = await client.fineTuning.jobs.list({ limit: 2 });
  assert.ok(Array.isArray(jobs.data));
});

test("errors are the SDK's", async () => {
  await assert.rejects(client.chat.completions.create({ model: "ft:none", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: 9 }), OpenAI.BadRequestError);
  const stranger = new OpenAI({ baseURL: process.env.TUNEPORT_BASE_URL, apiKey: "sk-wrong-wrong-wrong" });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});
