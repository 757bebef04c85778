import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { conversation, unread } from "../../lib/cli/conversation.ts";
import { type ChatMessage, generate, loadModel, type Model, openGpu, renderChat } from "../../mod.ts";
import { MODEL, ROOT } from "./fake_io.ts";

Deno.test("unread() gives what follows the tokens read, the stop token first", () => {
  assertEquals(unread([1, 2, 3, 0, 4], [1, 2, 3]), [0, 4]);
  assertEquals(unread([1, 2], []), [1, 2]);
});

Deno.test("unread() gives nothing where the chat begins otherwise, or has nothing new", () => {
  assertEquals(unread([1, 9, 3, 0, 4], [1, 2, 3]), undefined);
  assertEquals(unread([1, 2], [1, 2]), undefined);
  assertEquals(unread([1], [1, 2]), undefined);
});

// Answers end with a comma, which is a token of its own and is declared the stop token below.
const TEMPLATE = "{% for message in messages %}{{ message['content'] }}" +
  "{{ ',' if message['role'] == 'assistant' else '\\n\\n' }}{% endfor %}";

/** The same, but an answer is shortened once it is history, as templates do that drop thoughts. */
const REWRITING = TEMPLATE.replace("message['content']", "message['content'][:3]");

async function withModel(work: (model: Model) => Promise<void>): Promise<void> {
  using gpu = await openGpu();
  // Rounding alone must not decide what is likeliest.
  using model = await loadModel(gpu, join(ROOT, MODEL), { dtype: "f32" });
  await work(model);
}

const ASKED = "There was an old house near the river.";
const ASKED_NEXT = "And then?";

Deno.test("conversation() reads the stop token and what is new in a second turn, as if read at once", async () => {
  await withModel(async (model) => {
    const comma = model.tokenizer!.encode(",")[0];
    const options = { maxTokens: 40, temperature: 0, stopIds: [comma] };
    using talk = conversation(model, { template: TEMPLATE });
    const first = await talk.say(ASKED, options).record;
    assertEquals(first.finishReason, "stop");
    assert(first.ids.length > 0);
    assertEquals(talk.tokens, first.promptIds.length + first.ids.length);

    const second = await talk.say(ASKED_NEXT, options).record;
    const asked: ChatMessage[] = [
      { role: "user", content: ASKED },
      { role: "assistant", content: first.text },
      { role: "user", content: ASKED_NEXT },
    ];
    const whole = renderChat(model.tokenizer!, asked, { template: TEMPLATE });
    assertEquals(second.promptIds[0], comma);
    assertEquals([...first.promptIds, ...first.ids, ...second.promptIds], whole);
    const alone = await generate(model, whole, options).record;
    assertEquals(second.ids, alone.ids);
    assertEquals(talk.messages, [...asked, { role: "assistant", content: second.text }]);
  });
});

Deno.test("conversation() begins a session anew where the template rewrites history", async () => {
  await withModel(async (model) => {
    const options = { maxTokens: 8, temperature: 0 };
    using talk = conversation(model, { template: REWRITING });
    await talk.say(ASKED, options).record;
    const second = await talk.say(ASKED_NEXT, options).record;
    const asked = talk.messages.slice(0, -1);
    assertEquals(second.promptIds, renderChat(model.tokenizer!, asked, { template: REWRITING }));
    assertEquals(talk.tokens, second.promptIds.length + second.ids.length);
  });
});

Deno.test("conversation() forgets all but the system message on reset", async () => {
  await withModel(async (model) => {
    using talk = conversation(model, { template: TEMPLATE, system: "Be kind." });
    const first = await talk.say(ASKED, { maxTokens: 2, temperature: 0 }).record;
    talk.reset();
    assertEquals(talk.tokens, 0);
    assertEquals(talk.messages, [{ role: "system", content: "Be kind." }]);
    assertEquals(
      await talk.say(ASKED, { maxTokens: 2, temperature: 0 }).record.then(({ ids }) => ids),
      first.ids,
    );
  });
});

Deno.test("conversation() is after a turn that fails as before it", async () => {
  await withModel(async (model) => {
    const options = { maxTokens: 4, temperature: 0 };
    using talk = conversation(model, { template: TEMPLATE });
    await talk.say(ASKED, options).record;
    const before = talk.messages;
    const long = talk.say("word ".repeat(3000), options);
    await assertRejects(() => long.record, RangeError, "context");
    assertThrows(() => talk.say("a", { temperature: -1 }), RangeError, "temperature");
    assertEquals(talk.messages, before);
    const next = await talk.say(ASKED_NEXT, options).record;
    assertEquals(
      next.promptIds,
      renderChat(model.tokenizer!, talk.messages.slice(0, -1), { template: TEMPLATE }),
    );
  });
});
