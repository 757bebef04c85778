import { assertEquals, assertThrows } from "@std/assert";
import { createStopMatcher } from "../../lib/text/mod.ts";

/** All a matcher lets through of a text in pieces. */
function run(stops: string[], pieces: string[]): { text: string; stopped: boolean } {
  const matcher = createStopMatcher(stops);
  let text = "";
  for (const piece of pieces) {
    const { text: more, stopped } = matcher.push(piece);
    text += more;
    if (stopped) return { text, stopped };
  }
  const { text: rest, stopped } = matcher.flush();
  return { text: text + rest, stopped };
}

/** Every way to cut a text into pieces. */
function* cuts(text: string): Generator<string[]> {
  for (let mask = 0; mask < 1 << (text.length - 1); mask++) {
    const pieces = [""];
    for (let i = 0; i < text.length; i++) {
      pieces[pieces.length - 1] += text[i];
      if (mask & (1 << i)) pieces.push("");
    }
    yield pieces;
  }
}

Deno.test("createStopMatcher() ends the text before the first stop string, however it is cut", () => {
  const text = "xaabcabcdab";
  const sets = [
    [],
    ["zz"],
    ["x"],
    ["abc"],
    ["abcd"],
    ["ab", "abc"],
    ["abcd", "bc"],
    ["aabca", "bc"],
    ["abcabcx", "bca"],
    ["cdab"],
    ["abcabcdabx"],
    ["dabx", "cdabxy"],
    ["b", "aab"],
    ["aabcabcdabx", "bcd"],
    [text],
  ];
  for (const stops of sets) {
    const at = Math.min(...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0));
    const expected = at === Infinity ? { text, stopped: false } : { text: text.slice(0, at), stopped: true };
    for (const pieces of cuts(text)) {
      assertEquals(run(stops, pieces), expected, `${JSON.stringify(stops)} in ${JSON.stringify(pieces)}`);
    }
  }
});

Deno.test("createStopMatcher() holds back no more than could begin a stop string", () => {
  const matcher = createStopMatcher(["\n\nQ:", "END"]);
  assertEquals(matcher.push("a line\n"), { text: "a line", stopped: false });
  assertEquals(matcher.push("more E"), { text: "\nmore ", stopped: false });
  assertEquals(matcher.push("N"), { text: "", stopped: false });
  assertEquals(matcher.push("E"), { text: "EN", stopped: false });
  assertEquals(matcher.push("at\n\nQ"), { text: "Eat", stopped: false });
  assertEquals(matcher.push(": what"), { text: "", stopped: true });
});

Deno.test("createStopMatcher() gives nothing after the end", () => {
  const matcher = createStopMatcher(["."]);
  assertEquals(matcher.push("One. Two"), { text: "One", stopped: true });
  assertEquals(matcher.push(" three"), { text: "", stopped: true });
  assertEquals(matcher.flush(), { text: "", stopped: true });
});

Deno.test("createStopMatcher() flushes what was held, up to a stop string inside it", () => {
  const held = createStopMatcher(["</answer>"]);
  assertEquals(held.push("42</ans"), { text: "42", stopped: false });
  assertEquals(held.flush(), { text: "</ans", stopped: false });
  const inside = createStopMatcher(["abcd", "bc"]);
  assertEquals(inside.push("xabc"), { text: "x", stopped: false });
  assertEquals(inside.flush(), { text: "a", stopped: true });
});

Deno.test("createStopMatcher() takes signs that a pattern would read otherwise, and emoji", () => {
  assertEquals(run([".*"], ["any", "thing.", "*"]), { text: "anything", stopped: true });
  assertEquals(run(["🙂!"], ["a 🙂", " 🙂", "!"]), { text: "a 🙂 ", stopped: true });
});

Deno.test("createStopMatcher() throws for stop strings that are empty or none", () => {
  assertThrows(() => createStopMatcher(["a", ""]), RangeError, "Stop string 2 is empty");
  assertThrows(() => createStopMatcher([5 as unknown as string]), TypeError, "Stop string 1 must be a text");
});
