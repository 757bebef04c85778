import { assert, assertEquals } from "@std/assert";
import { type Dispatch, planMemory, type Value } from "../../lib/graph/mod.ts";
import { randomArray } from "../harness/kernel_case.ts";
import { fakeDispatch, rowsOf } from "./fake_dispatch.ts";

const SEGMENTS = ["body", "head", "sample"];

/** One step of a made-up program: which values it reads, and which it makes. */
interface Step {
  readonly dispatch: Dispatch;
  readonly reads: readonly Value[];
  readonly makes: Value;
}

/** A program whose steps read any values made before them, views among them. */
function randomProgram(seed: number): { steps: Step[]; keep: Value[] } {
  const numbers = randomArray(4000, seed);
  let next = 0;
  const random = (below: number) => Math.floor((numbers[next++ % numbers.length] + 1) / 2 * below);
  const length = 3 + random(25);
  const borders = [1 + random(length), 1 + random(length)].sort((a, b) => a - b);
  const made: Value[] = [];
  const steps: Step[] = [];
  for (let i = 0; i < length; i++) {
    const makes: Value = {
      id: i,
      name: `v${i}`,
      rows: rowsOf("rows", 1 + random(4)),
      width: 1 + random(30),
    };
    // Mostly fresh values, sometimes one from far back.
    const reads = Array.from(
      { length: Math.min(made.length, random(4)) },
      () =>
        random(4) === 0
          ? made[random(made.length)]
          : made[made.length - 1 - random(Math.min(3, made.length))],
    );
    const views = reads.map((of): Value =>
      random(3) === 0 ? { ...of, id: 1000 + next, width: 1, view: { of, offset: 0 } } : of
    );
    const segment = SEGMENTS[borders.filter((border) => i >= border).length];
    steps.push({ dispatch: fakeDispatch([...views, makes], segment), reads, makes });
    made.push(makes);
  }
  return { steps, keep: made.filter(() => random(8) === 0) };
}

Deno.test("planMemory() never gives a buffer to two values that are alive at once", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const { steps, keep } = randomProgram(seed);
    const plan = planMemory(steps.map(({ dispatch }) => dispatch), keep);
    assertEquals(plan.bytes, plan.slots.reduce((a, b) => a + b, 0));
    // A replay on a machine whose buffers remember which value was written last.
    const owner: (Value | undefined)[] = plan.slots.map(() => undefined);
    const slotOf = (value: Value) => plan.slotOf.get(value.id)!;
    const replay = (segments: readonly string[]) => {
      for (const { dispatch, reads, makes } of steps) {
        if (!segments.includes(dispatch.segment)) continue;
        for (const value of reads) assertEquals(owner[slotOf(value)]?.name, value.name, `seed ${seed}`);
        for (const value of reads) {
          assert(slotOf(value) !== slotOf(makes), `seed ${seed}: reads what it writes`);
        }
        assert(plan.slots[slotOf(makes)] >= makes.rows.capacity * makes.width * 4, `seed ${seed}: too small`);
        owner[slotOf(makes)] = makes;
      }
    };
    replay(SEGMENTS);
    for (const value of keep) assertEquals(owner[slotOf(value)]?.name, value.name, `seed ${seed}: not kept`);
    // Segments after the first are replayed on what the first left, as often as one likes.
    replay(["head"]);
    replay(["head", "sample"]);
    replay(["sample"]);
    for (const value of keep) assertEquals(owner[slotOf(value)]?.name, value.name, `seed ${seed}: not kept`);
  }
});

Deno.test("planMemory() lets values that follow one another share buffers", () => {
  const values = Array.from(
    { length: 10 },
    (_, id): Value => ({ id, name: `v${id}`, rows: rowsOf("rows", 2), width: 8 }),
  );
  const chain = values.slice(1).map((value, i) => fakeDispatch([values[i], value]));
  const { slots, bytes } = planMemory(chain, []);
  assertEquals([slots, bytes], [[64, 64], 128]);
});

Deno.test("planMemory() takes the smallest free buffer that fits, and grows the largest one rather than add one", () => {
  const value = (id: number, width: number): Value => ({
    id,
    name: `v${id}`,
    rows: rowsOf("rows", 1),
    width,
  });
  const [a, b, c, small, big] = [value(0, 10), value(1, 4), value(2, 1), value(3, 3), value(4, 20)];
  const plan = planMemory([
    fakeDispatch([a, b]),
    fakeDispatch([c]),
    fakeDispatch([small, c]),
    fakeDispatch([big, c]),
  ], []);
  // a has 40 bytes, b 16; c takes b's as the smaller, so `small` takes a's, and `big` grows it once `small` is done.
  assertEquals(plan.slots, [80, 16]);
  assertEquals([a, b, c, small, big].map(({ id }) => plan.slotOf.get(id)), [0, 1, 1, 0, 0]);
});

Deno.test("planMemory() gives a view no buffer of its own", () => {
  const root: Value = { id: 0, name: "root", rows: rowsOf("rows", 3), width: 8 };
  const view: Value = { id: 1, name: "view", rows: root.rows, width: 2, view: { of: root, offset: 6 } };
  const plan = planMemory([fakeDispatch([root]), fakeDispatch([view])], [view]);
  assertEquals([...plan.slotOf], [[0, 0]]);
  assertEquals(plan.slots, [96]);
});

Deno.test("planMemory() of nothing needs nothing", () => {
  assertEquals(planMemory([], []), { slots: [], slotOf: new Map(), bytes: 0 });
});
