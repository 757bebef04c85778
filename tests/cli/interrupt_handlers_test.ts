import { assertEquals } from "@std/assert";
import { interruptHandlers } from "../../lib/cli/interrupt_handlers.ts";

/** Handlers under a clock that the test sets, and what was called. */
function scene() {
  const called: string[] = [];
  let time = 0;
  const handlers = interruptHandlers(() => called.push("end"), () => time);
  const pressAt = (ms: number) => {
    time = ms;
    handlers.press();
    return called;
  };
  return { pressAt, add: (name: string) => handlers.add(() => called.push(name)) };
}

Deno.test("interruptHandlers() calls the latest handler once, then ends the process", () => {
  const { add, pressAt } = scene();
  add("outer");
  add("inner");
  assertEquals(pressAt(0), ["inner"]);
  assertEquals(pressAt(1000), ["inner", "end"]);
});

Deno.test("interruptHandlers() goes back to the outer handler when the inner is taken away", () => {
  const { add, pressAt } = scene();
  add("outer");
  const stop = add("inner");
  assertEquals(pressAt(0), ["inner"]);
  stop();
  stop();
  assertEquals(pressAt(1000), ["inner", "outer"]);
});

Deno.test("interruptHandlers() takes two signals at once for one, also between two handlers", () => {
  const { add, pressAt } = scene();
  const stop = add("answer");
  pressAt(0);
  stop();
  add("prompt");
  assertEquals(pressAt(5), ["answer"]);
  assertEquals(pressAt(1000), ["answer", "prompt"]);
});

Deno.test("interruptHandlers() ends the process where nobody asked", () => {
  assertEquals(scene().pressAt(0), ["end"]);
});
