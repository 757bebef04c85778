// What the stand-ins under tests/std must share with the packages they stand for: each line states documented behaviour
// of @std/assert, @std/cli and @std/path, so the file also passes with the real packages in their place.

import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  fail,
} from "@std/assert";
import { parseArgs } from "@std/cli";
import { parseArgs as parseArgsByPath } from "@std/cli/parse-args";
import {
  basename,
  dirname,
  extname,
  fromFileUrl,
  isAbsolute,
  join,
  normalize,
  relative,
  resolve,
  SEPARATOR,
  toFileUrl,
} from "@std/path";

/** The message that a failed assertion gives; judged without the assertions under test. */
function messageOf(fn: () => unknown): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof AssertionError && error.name === "AssertionError") return error.message;
    throw error;
  }
  throw new Error(`Expected a failed assertion: ${fn}`);
}

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

class Point {
  constructor(readonly x: number) {}
}

class Doubled {
  #x: number;
  constructor(x: number) {
    this.#x = x;
  }
  get twice(): number {
    return 2 * this.#x;
  }
}

function cycle(tail: number): unknown[] {
  const list: unknown[] = [1];
  list.push(list, tail);
  return list;
}

const equalPairs: [string, unknown, unknown][] = [
  ["both zeros", 0, -0],
  ["NaN and itself", NaN, NaN],
  ["nested lists and objects", { a: [1, { b: "c" }] }, { a: [1, { b: "c" }] }],
  ["keys in another order", { a: 1, b: 2 }, { b: 2, a: 1 }],
  ["typed arrays, zeros and NaN within", new Float32Array([0, NaN, 2]), new Float32Array([-0, NaN, 2])],
  ["array buffers", new Uint8Array([1, 2]).buffer, new Uint8Array([1, 2]).buffer],
  ["dates, invalid ones too", [new Date(5), new Date(NaN)], [new Date(5), new Date(NaN)]],
  ["patterns and URLs", [/a/g, new URL("file:///a")], [/a/g, new URL("file:///a")]],
  ["maps and sets in another order", [new Map([[1, "a"], [2, "b"]]), new Set([1, 2])], [
    new Map([[2, "b"], [1, "a"]]),
    new Set([2, 1]),
  ]],
  ["sets of objects", new Set([{ a: 1 }, { a: 2 }]), new Set([{ a: 2 }, { a: 1 }])],
  ["instances of one class", new Point(1), new Point(1)],
  ["an object without a prototype and a plain one", Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
  ["cycles", cycle(2), cycle(2)],
];

const unequalPairs: [string, unknown, unknown][] = [
  ["numbers", 1, 2],
  ["a number and its text", 1, "1"],
  ["null and undefined", null, undefined],
  ["a key that is undefined and one that is missing", { a: undefined }, {}],
  ["keys of another name", { a: undefined }, { b: undefined }],
  ["lists of other lengths", [1, 2], [1]],
  ["a typed array and a list", new Uint8Array([1]), [1]],
  ["typed arrays of two kinds", new Uint8Array([1]), new Int8Array([1])],
  ["typed arrays of other lengths", new Float32Array(2), new Float32Array(3)],
  ["typed arrays of other content", new Float32Array([1, 2]), new Float32Array([1, 3])],
  ["dates", new Date(5), new Date(6)],
  ["patterns with other flags", /a/g, /a/i],
  ["maps with other values", new Map([[1, "a"]]), new Map([[1, "b"]])],
  ["sets with other members", new Set([1, 2]), new Set([1, 3])],
  ["sets of other objects", new Set([{ a: 1 }]), new Set([{ a: 2 }])],
  ["instances of two classes with the same fields", new Point(1), { x: 1 }],
  ["instances that differ in a getter", new Doubled(1), new Doubled(2)],
  ["cycles with other tails", cycle(2), cycle(3)],
  ["functions that read the same", () => 1, () => 1],
  ["the same two objects at two places", [new Set([{ a: 1 }]), { a: 1 }], [new Set([{ a: 1 }]), { a: 2 }]],
];

for (const [name, a, b] of equalPairs) {
  Deno.test(`assertEquals() takes as equal: ${name}`, () => {
    assertEquals(a, b);
    assertEquals(b, a);
    check(messageOf(() => assertNotEquals(a, b)).includes("actual"), "assertNotEquals() should fail");
  });
}

for (const [name, a, b] of unequalPairs) {
  Deno.test(`assertEquals() tells apart: ${name}`, () => {
    for (const [left, right] of [[a, b], [b, a]]) {
      check(
        messageOf(() => assertEquals(left, right)).startsWith("Values are not equal."),
        "assertEquals() fails",
      );
      assertNotEquals(left, right);
    }
  });
}

Deno.test("assertEquals() adds the caller's message", () => {
  const message = messageOf(() => assertEquals({ a: [1, { b: 2 }] }, { a: [1, { b: 3 }] }, "row 7"));
  check(message.startsWith("Values are not equal: row 7\n"), message);
});

Deno.test("assertEquals() compares a million numbers in well under a second", () => {
  const started = performance.now();
  assertEquals(new Float32Array(1_000_000), new Float32Array(1_000_000));
  check(performance.now() - started < 900, `took ${performance.now() - started} ms`);
});

Deno.test("assert() passes for truthy values alone", () => {
  for (const value of [1, "0", [], {}]) assert(value);
  for (const value of [0, "", null, undefined, NaN, false]) check(messageOf(() => assert(value)) === "", "");
  check(messageOf(() => assert(false, "no rows")) === "no rows", "the message is the caller's");
});

Deno.test("assertStrictEquals() compares by identity", () => {
  const value = {};
  assertStrictEquals(value, value);
  assertStrictEquals(NaN, NaN);
  messageOf(() => assertStrictEquals({}, {}));
  messageOf(() => assertStrictEquals(0, -0));
  messageOf(() => assertStrictEquals(1, 2));
});

Deno.test("assertAlmostEquals() allows 1e-7 of the expected value by default", () => {
  assertAlmostEquals(1 + 0.9e-7, 1);
  assertAlmostEquals(1e9 + 90, 1e9);
  assertAlmostEquals(1.000000001e-8, 1.000000002e-8);
  messageOf(() => assertAlmostEquals(1 + 1.1e-7, 1));
  messageOf(() => assertAlmostEquals(1e-9, 0));
});

Deno.test("assertAlmostEquals() takes a tolerance, infinities and NaN", () => {
  assertAlmostEquals(0.01, 0.02, 0.1);
  assertAlmostEquals(0.1 + 0.2, 0.3, 1e-16);
  assertAlmostEquals(NaN, NaN);
  assertAlmostEquals(Infinity, Infinity);
  messageOf(() => assertAlmostEquals(0.1 + 0.2, 0.3, 1e-17));
  messageOf(() => assertAlmostEquals(NaN, 1, 10));
  messageOf(() => assertAlmostEquals(1, NaN, 10));
  messageOf(() => assertAlmostEquals(Infinity, -Infinity));
  check(messageOf(() => assertAlmostEquals(1, 2, 0.5, "row 7")).endsWith(": row 7"), "adds the message");
});

Deno.test("assertGreater() and its kin compare as the operators do", () => {
  assertGreater(2, 1);
  assertGreaterOrEqual(1, 1);
  assertLess(1, 2);
  assertLessOrEqual(1, 1);
  messageOf(() => assertGreater(1, 1));
  messageOf(() => assertGreaterOrEqual(0, 1));
  messageOf(() => assertLess(1, 1));
  messageOf(() => assertLessOrEqual(2, 1));
  messageOf(() => assertLessOrEqual(NaN, 1));
  check(messageOf(() => assertLess(2, 1)) === "Expect 2 < 1", "shows both values");
  check(messageOf(() => assertLess(2, 1, "too slow")) === "too slow", "the message is the caller's");
});

Deno.test("assertExists() refuses null and undefined alone", () => {
  for (const value of [0, "", false, NaN]) assertExists(value);
  messageOf(() => assertExists(null));
  messageOf(() => assertExists(undefined));
});

Deno.test("assertStringIncludes() and assertMatch() look within a text", () => {
  assertStringIncludes("a model", "mod");
  assertMatch("layer 12", /\d+$/);
  messageOf(() => assertStringIncludes("a model", "Mod"));
  messageOf(() => assertMatch("layer", /\d+$/));
});

Deno.test("assertInstanceOf() knows derived classes", () => {
  assertInstanceOf(new RangeError("x"), Error);
  messageOf(() => assertInstanceOf(new Error("x"), RangeError));
  messageOf(() => assertInstanceOf(null, Error));
  messageOf(() => assertInstanceOf(1, Number));
});

Deno.test("assertArrayIncludes() compares in depth", () => {
  assertArrayIncludes([{ a: 1 }, { a: 2 }], [{ a: 2 }]);
  assertArrayIncludes([1, NaN], [NaN]);
  check(messageOf(() => assertArrayIncludes([1, 2], [2, 3])).includes("missing"), "names what is missing");
});

Deno.test("fail() fails", () => {
  check(messageOf(() => fail()) === "Failed assertion.", "without a message");
  check(messageOf(() => fail("no rows")) === "Failed assertion: no rows", "with one");
});

Deno.test("assertThrows() returns what was thrown", () => {
  const error = new RangeError("Row 7 is out of range");
  const thrower = () => {
    throw error;
  };
  assertStrictEquals(assertThrows(thrower), error);
  const typed: RangeError = assertThrows(thrower, RangeError, "Row 7");
  assertStrictEquals(typed, error);
  assertStrictEquals(assertThrows(thrower, Error), error);
});

Deno.test("assertThrows() fails for nothing, another class and another message", () => {
  const thrower = () => {
    throw new RangeError("Row 7 is out of range");
  };
  check(messageOf(() => assertThrows(() => 1)) === "Expected function to throw.", "nothing thrown");
  check(messageOf(() => assertThrows(() => 1, "row 7")) === "Expected function to throw: row 7", "message");
  check(messageOf(() => assertThrows(thrower, TypeError)).includes('"RangeError"'), "another class");
  check(messageOf(() => assertThrows(thrower, RangeError, "Row 8")).includes("Row 8"), "another message");
  const bare = () => {
    throw "Row 7";
  };
  check(messageOf(() => assertThrows(bare, Error)) === "A non-Error object was thrown.", "not an error");
});

async function rejectedMessage(fn: () => Promise<unknown>): Promise<string> {
  try {
    await fn();
  } catch (error) {
    if (error instanceof AssertionError) return error.message;
    throw error;
  }
  throw new Error("Expected a failed assertion");
}

Deno.test("assertRejects() returns what the promise was rejected with", async () => {
  const error = new RangeError("Row 7 is out of range");
  assertStrictEquals(await assertRejects(() => Promise.reject(error)), error);
  const typed: RangeError = await assertRejects(() => Promise.reject(error), RangeError, "Row 7");
  assertStrictEquals(typed, error);
});

Deno.test("assertRejects() fails for a fulfilled promise, a throw, another class and another message", async () => {
  const rejecter = () => Promise.reject(new RangeError("Row 7 is out of range"));
  const thrower = () => {
    throw new RangeError("Row 7 is out of range");
  };
  const of = (fn: () => Promise<unknown>) => rejectedMessage(fn);
  check(
    await of(() => assertRejects(() => Promise.resolve(1))) === "Expected function to reject.",
    "nothing",
  );
  check(
    await of(() => assertRejects(thrower, RangeError)) === "Function throws when expected to reject.",
    "throw",
  );
  check((await of(() => assertRejects(rejecter, TypeError))).includes('"RangeError"'), "another class");
  check((await of(() => assertRejects(rejecter, RangeError, "Row 8"))).includes("Row 8"), "another message");
  check(
    await of(() => assertRejects(() => Promise.reject("Row 7"), Error)) ===
      "A non-Error object was rejected.",
    "not an error",
  );
});

Deno.test("parseArgs() guesses types where nothing is declared", () => {
  assertEquals(parseArgs(["--foo", "--bar=baz", "./quux.txt"]), { foo: true, bar: "baz", _: ["./quux.txt"] });
  assertEquals(parseArgs(["--n", "5", "--hex=0x10", "7", "x"]), { n: 5, hex: 16, _: [7, "x"] });
  assertEquals(parseArgs(["--a", "--b", "-c"]), { a: true, b: true, c: true, _: [] });
});

Deno.test("parseArgs() leaves the value of a string option as it is", () => {
  const args = parseArgs(["--id", "007", "--ids=1,2", "--empty"], {
    string: ["id", "ids", "empty", "absent"],
  });
  const id: string | undefined = args.id;
  assertEquals(id, "007");
  assertEquals(args, { id: "007", ids: "1,2", empty: "", _: [] });
  assertEquals<unknown>(parseArgs(["1", "a"], { string: "_" })._, ["1", "a"]);
});

Deno.test("parseArgs() takes no value that starts with a hyphen", () => {
  assertEquals(parseArgs(["--seed", "-1"], { string: ["seed"] }), { seed: "", 1: true, _: [] });
  assertEquals(parseArgs(["--seed=-1"], { string: ["seed"] }), { seed: "-1", _: [] });
  assertEquals(parseArgs(["--prompt", "", "x"], { string: ["prompt"] }), { prompt: "", _: ["", "x"] });
});

Deno.test("parseArgs() gives a boolean option false by default and never the next argument", () => {
  const args = parseArgs(["--json", "file"], { boolean: ["json", "quiet"] });
  const quiet: boolean = args.quiet;
  assertEquals(quiet, false);
  assertEquals(args, { json: true, quiet: false, _: ["file"] });
  assertEquals(parseArgs(["--json", "false", "--quiet=false"], { boolean: ["json", "quiet"] }), {
    json: false,
    quiet: false,
    _: [],
  });
  assertEquals(parseArgs(["--json", "file"], { boolean: true }), { json: true, _: ["file"] });
});

Deno.test("parseArgs() reads --no-x as false where x is negatable", () => {
  const options = { boolean: ["color"], negatable: ["color"] } as const;
  assertEquals(parseArgs(["--no-color"], options), { color: false, _: [] });
  assertEquals(parseArgs(["--color"], options), { color: true, _: [] });
  assertEquals(parseArgs(["--no-color"], { boolean: ["color"] }), { color: false, "no-color": true, _: [] });
  const bos = parseArgs(["--no-stop"], { string: ["stop"], negatable: ["stop"] }).stop;
  const typed: string | false | undefined = bos;
  assertStrictEquals(typed, false);
});

Deno.test("parseArgs() collects an option given several times, else the last one counts", () => {
  const args = parseArgs(["--stop", "a", "--stop=b", "--seed", "1", "--seed", "2"], {
    string: ["stop", "seed"],
    collect: ["stop"],
  });
  const stop: string[] = args.stop;
  assertEquals(stop, ["a", "b"]);
  assertEquals(args.seed, "2");
  assertEquals(parseArgs([], { string: ["stop"], collect: ["stop"] }), { stop: [], _: [] });
  assertEquals(parseArgs(["--id", "1", "--id", "x"], { collect: ["id"] }), { id: [1, "x"], _: [] });
});

Deno.test("parseArgs() sets a default and the aliases of an option", () => {
  const args = parseArgs(["-h"], {
    boolean: ["help"],
    string: ["dtype"],
    alias: { help: ["h", "?"] },
    default: { dtype: "f16", "max-tokens": 256 },
  });
  const dtype: string = args.dtype;
  assertEquals(dtype, "f16");
  assertEquals(args, { help: true, h: true, "?": true, dtype: "f16", "max-tokens": 256, _: [] });
  assertEquals(parseArgs(["--dtype=f32"], { string: ["dtype"], default: { dtype: "f16" } }).dtype, "f32");
});

Deno.test("parseArgs() keeps what follows -- as it is", () => {
  assertEquals(parseArgs(["a", "--", "--b", "1"]), { _: ["a", "--b", "1"] });
  const args = parseArgs(["a", "--", "--b", "1"], { "--": true });
  const rest: string[] = args["--"];
  assertEquals(rest, ["--b", "1"]);
  assertEquals(args._, ["a"]);
});

Deno.test("parseArgs() stops at the first positional where it is told to", () => {
  assertEquals(parseArgs(["--a", "--", "x"], { stopEarly: true }), { a: true, _: ["x"] });
  assertEquals(
    parseArgs(["-v", "--json", "run", "--seed", "1"], { boolean: ["json", "v"], stopEarly: true }),
    {
      v: true,
      json: true,
      _: ["run", "--seed", "1"],
    },
  );
});

Deno.test("parseArgs() hands what is not declared to unknown", () => {
  const seen: unknown[][] = [];
  const unknown = (...given: unknown[]) => {
    seen.push(given);
    return false;
  };
  const args = parseArgs(["--json", "--tpyo=3", "-x", "file"], {
    boolean: ["json"],
    string: ["model"],
    unknown,
  });
  assertEquals(args, { json: true, _: [] });
  // A short option takes the argument after it, as a long one does.
  assertEquals(seen, [["--tpyo=3", "tpyo", "3"], ["-x", "x", "file"]]);
  seen.length = 0;
  assertEquals(parseArgs(["file"], { unknown }), { _: [] });
  assertEquals(seen, [["file"]]);
});

Deno.test("parseArgs() reads short options, joined and with values", () => {
  assertEquals(parseArgs(["-abc"]), { a: true, b: true, c: true, _: [] });
  assertEquals(parseArgs(["-n5", "-t=0.5", "-m", "dir"]), { n: 5, t: 0.5, m: "dir", _: [] });
  assertEquals(parseArgs(["-"]), { _: ["-"] });
});

Deno.test("parseArgs() keeps line breaks and equal signs of a value", () => {
  assertEquals(parseArgs(["--prompt=a=b\nc"], { string: ["prompt"] }).prompt, "a=b\nc");
  assertEquals(parseArgs(["--prompt", "a=b\nc"], { string: ["prompt"] }).prompt, "a=b\nc");
});

Deno.test("parseArgs() is the same under both import paths", () => {
  assertStrictEquals(parseArgs, parseArgsByPath);
});

Deno.test("toFileUrl() encodes what fromFileUrl() decodes", () => {
  const path = join(resolve("a folder"), "50% #1?.txt");
  const url = toFileUrl(path);
  assertEquals(url.protocol, "file:");
  assertMatch(url.href, /a%20folder\/50%25%20%231%3F\.txt$/);
  assertEquals(fromFileUrl(url), path);
  assertEquals(fromFileUrl(url.href), path);
  assertMatch(toFileUrl(resolve("folder") + SEPARATOR).href, /\/folder\/$/);
});

Deno.test("fromFileUrl() and toFileUrl() refuse what names no file", () => {
  assertThrows(() => fromFileUrl("https://example.com/a"), TypeError, "URL must be a file URL");
  assertThrows(() => fromFileUrl("no url"), TypeError);
  assertThrows(() => toFileUrl("a/b"), TypeError, "Path must be absolute");
});

Deno.test("join(), normalize(), dirname(), basename() and extname() take paths apart", () => {
  const path = join("models", ".", "novel", "..", "novel-llama", "model.safetensors");
  assertEquals(path, ["models", "novel-llama", "model.safetensors"].join(SEPARATOR));
  assertEquals(normalize("a//b/../c"), ["a", "c"].join(SEPARATOR));
  assertEquals(basename(path), "model.safetensors");
  assertEquals(basename(path, ".safetensors"), "model");
  assertEquals(basename(dirname(path)), "novel-llama");
  assertEquals([extname(path), extname(".hidden"), extname("a")], [".safetensors", "", ""]);
});

Deno.test("resolve() starts at the working folder and relative() leads back", () => {
  assertEquals(resolve("a"), join(Deno.cwd(), "a"));
  assertEquals(resolve("a", resolve("b")), resolve("b"));
  assertEquals(relative(resolve("a"), resolve("b", "c")), join("..", "b", "c"));
  assertEquals([isAbsolute(resolve("a")), isAbsolute("a")], [true, false]);
});
