// Lengths that policies plan: budgets hold, over prompts, layers and shares.

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  adaKv,
  composePolicies,
  expectedAttention,
  fastKv,
  h2o,
  keyDiff,
  knorm,
  type KvPolicy,
  perLayer,
  pyramidInfer,
  pyramidKv,
  randomPolicy,
  type Schedule,
  snapKv,
  streamingLlm,
  tova,
  type Turn,
} from "../../../lib/transforms/mod.ts";
import { pyramidTokens } from "../../../lib/transforms/kv_pruning/pyramid_kv.ts";
import { dealSlots, type SlotBudget } from "../../../lib/transforms/kv_pruning/slot_budget.ts";

/** Policies by their budgets, and whether decode evicts. */
const POLICIES: readonly (readonly [string, (budget: SlotBudget) => KvPolicy, boolean])[] = [
  ["snapKv", (budget) => snapKv({ ...budget, window: 8 }), false],
  ["pyramidKv", (budget) => pyramidKv(budget), false],
  ["adaKv", (budget) => adaKv({ ...budget, window: 8 }), false],
  ["fastKv", (budget) => fastKv(budget), false],
  ["knorm", (budget) => knorm(budget), false],
  ["keyDiff", (budget) => keyDiff({ ...budget, sinks: 4, window: 3 }), false],
  ["expectedAttention", (budget) => expectedAttention(budget), false],
  ["randomPolicy", (budget) => randomPolicy(budget), false],
  ["h2o", (budget) => h2o({ ...budget, recent: 12 }), true],
  ["tova", (budget) => tova(budget), true],
  ["streamingLlm", (budget) => streamingLlm(budget), true],
  ["snapKv, then tova", (budget) => composePolicies(snapKv({ ...budget, window: 8 }), tova()), true],
  ["pyramidKv, then h2o", (budget) => composePolicies(pyramidKv(budget), h2o({ recent: 12 })), true],
  ["fastKv, then streamingLlm", (budget) => composePolicies(fastKv(budget), streamingLlm()), true],
  ["snapKv, then h2o with the budget", (budget) => composePolicies(snapKv({ window: 8 }), h2o(budget)), true],
];

const shapeOf = (layers: number) => ({ layers, heads: 8, kvHeads: 2 });
const total = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** What every schedule must be. */
function assertSound(
  { layers }: Schedule,
  { tokens, maxTokens, past }: Turn,
  evicts: boolean,
  name: string,
): void {
  const fed = Math.max(0, maxTokens - 1);
  layers.forEach((layer, l) => {
    const { rows, window, scored, sinks, keep, keepSlots, capacity } = layer;
    const before = past?.[l] ?? 0;
    assertEquals(layer.past, before, name);
    assertEquals(rows, l === 0 ? tokens : layers[l - 1].keep + layers[l - 1].window, name);
    assert(window >= 1 && window <= rows && scored >= 1 && scored <= rows, `${name}: window`);
    assert(keep >= 0 && keep <= rows - window, `${name}: rows`);
    assert(keepSlots >= 0 && keepSlots <= rows - window && sinks <= keepSlots, `${name}: slots`);
    const stored = window + keepSlots;
    // New tokens find a slot: each its own, or that of one which goes.
    assert(capacity - before >= stored + (evicts ? Math.min(1, fed) : fed), `${name}: capacity`);
    assert(capacity - before <= tokens + fed, `${name}: more than there is`);
  });
}

Deno.test("Budgets are used to the last slot and no further", () => {
  let met = 0;
  for (const [name, make, evicts] of POLICIES) {
    for (const layers of [1, 2, 6, 32]) {
      for (const [tokens, maxTokens] of [[40, 30], [512, 1], [511, 64], [2048, 256], [3, 200], [1, 1]]) {
        for (const keep of [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.97, 1]) {
          const turn = { tokens, maxTokens, position: 0 };
          const full = layers * (tokens + maxTokens);
          let schedule: Schedule;
          try {
            schedule = make({ keep }).schedule(shapeOf(layers), turn);
          } catch (error) {
            assert(error instanceof RangeError && keep < 1, `${name}: ${error}`);
            continue;
          }
          met++;
          const label = `${name}, ${layers} layers, ${tokens} + ${maxTokens}, keep ${keep}`;
          assertSound(schedule, turn, evicts, label);
          const slots = total(schedule.layers.map(({ capacity }) => capacity));
          assertEquals(
            slots,
            Math.min(Math.floor(keep * full), layers * (tokens + Math.max(0, maxTokens - 1))),
            label,
          );
          assertEquals(schedule.solved?.share, slots / full, label);
        }
      }
    }
  }
  assert(met > 1000, `only ${met} budgets were met`);
});

Deno.test("Budgets in slots, and later turns, hold as well", () => {
  for (const [name, make, evicts] of POLICIES) {
    const turn = { tokens: 300, maxTokens: 50, position: 0 };
    const first = make({ cacheTokens: 120 }).schedule(shapeOf(6), turn);
    assertSound(first, turn, evicts, name);
    assertEquals(total(first.layers.map(({ capacity }) => capacity)), 6 * 120, name);
    const past = first.layers.map(({ capacity }) => capacity - 1);
    const later = { tokens: 80, maxTokens: 20, position: 349, past };
    const second = make({ cacheTokens: 70 }).schedule(shapeOf(6), later);
    assertSound(second, later, evicts, name);
    assertEquals(total(second.layers.map(({ capacity }, l) => capacity - past[l])), 6 * 70, name);
    // A later turn that is short has what it needs.
    const short = make({ cacheTokens: 120 }).schedule(shapeOf(6), { ...later, tokens: 5, maxTokens: 3 });
    assertEquals(short.layers.map(({ capacity }, l) => capacity - past[l]), Array(6).fill(7), name);
  }
});

Deno.test("A budget that is too small is refused with the least that does, and what helps", () => {
  const turn = { tokens: 100, maxTokens: 60, position: 0 };
  const refused = (policy: KvPolicy, text: string) =>
    assertThrows(() => policy.schedule(shapeOf(4), turn), RangeError, text);
  refused(
    snapKv({ keep: 0.4, window: 8 }),
    "keep must be from 0.4188 to 1 for 100 tokens and 60 new ones: snapKv evicts nothing while tokens are generated, so " +
      "that each of them needs a slot beside those of its window; compose it with a policy that does (h2o, tova, " +
      "streamingLlm): received 0.4",
  );
  refused(
    h2o({ cacheTokens: 20 }),
    "cacheTokens must be from 33 to 160 for 100 tokens and 60 new ones: the tokens that are never evicted and the next " +
      "one need that many slots: received 20",
  );
  refused(fastKv({ cacheTokens: 161 }), "cacheTokens must be from 67 to 160");
  refused(
    composePolicies(snapKv({ window: 64 }), h2o({ cacheTokens: 40 })),
    "Layer 0 has 40 slots, and the tokens that are never evicted and the next one need 65: give snap-kv a larger " +
      "budget, or smaller windows to both",
  );
});

Deno.test("pyramidTokens() falls in a straight line, and adds up", () => {
  const shape = { layers: 5, tokens: 1000, window: 8, beta: 20 };
  // lo 5, hi 195; one is left of rounding.
  assertEquals(pyramidTokens(5 * 100, shape), [196, 147, 100, 52, 5]);
  // As published where the step is whole: lo 20, hi 60.
  assertEquals(pyramidTokens(5 * 40, { ...shape, beta: 2 }), [60, 50, 40, 30, 20]);
  // The lowest has no more than the context: the others get what that leaves.
  assertEquals(pyramidTokens(3 * 40, { ...shape, layers: 3, tokens: 80, window: 10 }), [70, 40, 10]);
  // Fewer than twice the average: evenly.
  assertEquals(pyramidTokens(3 * 41, { ...shape, layers: 3, tokens: 80, window: 10 }), [41, 41, 41]);
  assertEquals(pyramidTokens(30, { ...shape, layers: 1 }), [30]);
  for (const layers of [2, 3, 7, 32]) {
    for (const count of [0, 1, 17, 500, 5000]) {
      for (const beta of [1, 3, 20]) {
        const tokens = pyramidTokens(count, { layers, tokens: 900, window: 8, beta });
        assertEquals(total(tokens), Math.min(count, layers * 892));
        assert(tokens.every((own, l) => own >= 0 && own <= 892 && (l === 0 || own <= tokens[l - 1])));
      }
    }
  }
});

Deno.test("dealSlots() fills evenly up to what each takes", () => {
  assertEquals(dealSlots(10, [9, 9, 9]), [4, 3, 3]);
  assertEquals(dealSlots(10, [2, 9, 9]), [2, 4, 4]);
  assertEquals(dealSlots(11, [2, 9, 3]), [2, 6, 3]);
  assertEquals(dealSlots(99, [2, 9, 3]), [2, 9, 3]);
  assertEquals(dealSlots(0, [2, 9]), [0, 0]);
});

Deno.test("fastKv() leaves rows after its layer, and more of them for a larger budget", () => {
  const turn = { tokens: 200, maxTokens: 1, position: 0 };
  const rows = (policy: KvPolicy, layers: number) =>
    policy.schedule(shapeOf(layers), turn).layers.map((layer) => layer.rows);
  assertEquals(rows(fastKv({ keep: 0.2 }), 6), [200, 200, 200, 48, 48, 48]);
  assertEquals(rows(fastKv({ keep: 0.2, startLayer: 0, tspRate: 0.1, window: 4 }), 3), [200, 24, 24]);
  // 0.8 of 1206 slots are 964, of which the first three layers hold 600.
  assertEquals(rows(fastKv({ keep: 0.8 }), 6), [200, 200, 200, 122, 122, 122]);
  assertEquals(rows(fastKv({ keep: 1 }), 6), Array(6).fill(200));
  assertThrows(
    () => fastKv({ startLayer: 6 }).rules(shapeOf(6)),
    RangeError,
    "startLayer must be from 0 to 5 in a model of 6 layers: received 6",
  );
});

Deno.test("composePolicies() and perLayer() take what goes together", () => {
  assertThrows(
    () => composePolicies(snapKv({ keep: 0.5 }), h2o({ cacheTokens: 50 })),
    RangeError,
    "Only one of two policies can have the budget: snap-kv has one, leave that of h2o out",
  );
  assertThrows(
    () => composePolicies(h2o(), snapKv()).rules(shapeOf(2)),
    TypeError,
    "The second policy must evict at its cap, alike in all layers, as h2o, tova and streamingLlm do: snap-kv does not",
  );
  assertThrows(
    () => composePolicies(h2o(), pyramidInfer()).rules(shapeOf(2)),
    TypeError,
    "The second policy must",
  );
  assertThrows(
    () => composePolicies(pyramidInfer({ algorithm: "paper" }), tova()).rules(shapeOf(2)),
    TypeError,
    "The first policy must know how much it keeps, and with pyramid-infer the attention decides that",
  );
  const [rule] = composePolicies(snapKv(), tova()).rules(shapeOf(1));
  assertEquals(rule.decode, {
    type: "evict",
    score: "last",
    window: 1,
    sinks: 0,
    perKvHead: true,
    relative: false,
  });
  assertThrows(
    () => perLayer(() => fastKv()).rules(shapeOf(2)),
    TypeError,
    "fast-kv drops hidden rows, which every later layer would lack: it goes with whole models, not by layer",
  );
  assertThrows(() => adaKv({ base: tova() }).rules(shapeOf(1)), TypeError, "those of tova do not");
  assertThrows(
    () => adaKv({ base: snapKv(), keep: 0.5 }),
    RangeError,
    "keep is an option of the base: give it to snap-kv",
  );
  const layers = perLayer((layer) => layer === 1 ? tova({ keep: 0.5 }) : undefined);
  const turn = { tokens: 40, maxTokens: 11, position: 0 };
  const { layers: planned } = layers.schedule(shapeOf(3), turn);
  assertEquals(planned.map(({ capacity }) => capacity), [50, 25, 50]);
  assertEquals(layers.rules(shapeOf(3)).map((rule) => Object.keys(rule)), [[], ["prefill", "decode"], []]);
  assertSound(
    composePolicies(pyramidInfer({ keep: 0.4 }), tova()).schedule(shapeOf(4), turn),
    turn,
    true,
    "pyramid",
  );
});

Deno.test("Options are checked", () => {
  const cases: [() => KvPolicy, string][] = [
    [() => snapKv({ keep: 0 }), "keep must be above 0 and at most 1, which keeps everything: received 0"],
    [
      () => snapKv({ keep: 0.5, cacheTokens: 9 }),
      "keep and cacheTokens exclude each other: received 0.5 and 9",
    ],
    [() => snapKv({ window: 0 }), "window must be a whole number from 1: received 0"],
    [() => snapKv({ kernel: 2 }), "kernel must be an odd number from 1 to 255: received 2"],
    [() => snapKv({ pool: "sum" as "max" }), 'pool must be one of max, mean: received "sum"'],
    [() => pyramidKv({ beta: 0.5 }), "beta must be a number from 1 to 1000000: received 0.5"],
    [() => fastKv({ tspRate: 1.5 }), "tspRate must be a number from 0 to 1: received 1.5"],
    [() => fastKv({ startLayer: -1 }), "startLayer must be a whole number from 0: received -1"],
    [() => adaKv({ share: 2 }), "share must be a number from 0 to 1: received 2"],
    [() => h2o({ recent: 0 }), "recent must be a whole number from 1: received 0"],
    [
      () => h2o({ heavy: 3, keep: 0.5 }),
      "heavy excludes keep and cacheTokens, which count it: received heavy 3",
    ],
    [() => streamingLlm({ sinks: -1 }), "sinks must be a whole number from 0: received -1"],
    [() => streamingLlm({ window: 9, keep: 0.5 }), "window excludes keep and cacheTokens"],
    [() => knorm({ window: 0 }), "window must be a whole number from 1: received 0"],
    [() => randomPolicy({ seed: -1 }), "seed must be a whole number from 0 to 4294967295: received -1"],
    [() => expectedAttention({ future: 0 }), "future must be a whole number from 1 to 65536: received 0"],
    [() => expectedAttention({ epsilon: 2 }), "epsilon must be a number from 0 to 1: received 2"],
    [() => tova({ cacheTokens: 0 }), "cacheTokens must be a whole number from 1: received 0"],
  ];
  for (const [make, message] of cases) assertThrows(make, RangeError, message);
});
