import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  hybridAttention,
  type HybridAttentionOptions,
  type HybridInputs,
  hybridStateWords,
} from "../../lib/ops/hybrid_attention.ts";
import { relativeError } from "../harness/compare.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { hybridAttention as oracle } from "../oracles/hybrid_attention.ts";
import { traceFor } from "../ops/trace_target.ts";
import {
  bySequence,
  columnsOf,
  decodeSteps,
  type OpSetup,
  prefillSteps,
  runSteps,
  type StepSetup,
  type TokenSetup,
} from "./state_steps.ts";

// The device is shared by all tests and outlives them.
const shared = { sanitizeOps: false, sanitizeResources: false };
const TOLERANCE = 2e-6;

const SMALL: HybridAttentionOptions = {
  heads: 4,
  kvHeads: 2,
  headSize: 12,
  featureSize: 8,
  window: 3,
  scale: 0.7,
  gate: 0.3,
};
const LEAST: HybridAttentionOptions = {
  heads: 1,
  kvHeads: 1,
  headSize: 4,
  featureSize: 4,
  window: 1,
  scale: 1,
  gate: 0.5,
};
const WIDE: HybridAttentionOptions = {
  heads: 2,
  kvHeads: 2,
  headSize: 20,
  featureSize: 24,
  window: 64,
  scale: 0.25,
  gate: 1,
};

/** First column and width of each input. */
function columnRanges(options: HybridAttentionOptions): Record<keyof HybridInputs, [number, number]> {
  const { heads, kvHeads, headSize, featureSize } = options;
  const widths = [heads, kvHeads, kvHeads].map((count) => count * headSize);
  const features = [heads, kvHeads].map((count) => count * featureSize);
  let at = 4;
  const [q, k, v, qFeatures, kFeatures] = [...widths, ...features].map((width): [number, number] => {
    at += width;
    return [at - width, width];
  });
  return { q, k, v, qFeatures, kFeatures };
}

function setupOf(options: HybridAttentionOptions, sequences: number): OpSetup {
  const ranges = Object.entries(columnRanges(options));
  const words = hybridStateWords(options);
  return {
    sequences,
    width: 4 + ranges.reduce((sum, [, [, width]]) => sum + width, 0),
    stateWords: words,
    build: (trace, columns) =>
      hybridAttention(
        trace,
        Object.fromEntries(
          ranges.map(([name, range]) => [name, columnsOf(trace, columns, ...range)]),
        ) as unknown as HybridInputs,
        options,
        { name: "state.0", layer: 0, words },
      ),
  };
}

/** Random tokens at these positions; features are over 0, as those of softmax are. */
function tokensAt(positions: readonly number[], options: HybridAttentionOptions, seed: number): TokenSetup[] {
  const { width } = setupOf(options, 1);
  const { qFeatures: [first] } = columnRanges(options);
  const numbers = randomArray(positions.length * width, seed, 2);
  return positions.map((position, i) => {
    const columns = numbers.slice(i * width, (i + 1) * width);
    for (let c = first; c < width; c++) columns[c] = 0.01 + Math.abs(columns[c]) / options.featureSize;
    return { position, columns };
  });
}

function upTo(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}

function oracleOf(tokens: readonly TokenSetup[], options: HybridAttentionOptions): Float64Array {
  const ranges = columnRanges(options);
  const part = (columns: Float32Array, [first, width]: [number, number]): Float32Array =>
    columns.subarray(first, first + width);
  return oracle(
    tokens.map(({ position, columns }) => ({
      position,
      q: part(columns, ranges.q),
      k: part(columns, ranges.k),
      v: part(columns, ranges.v),
      qFeatures: part(columns, ranges.qFeatures),
      kFeatures: part(columns, ranges.kFeatures),
    })),
    options,
  );
}

/** Runs steps and compares every sequence with the oracle. */
async function check(
  sequences: readonly TokenSetup[][],
  options: HybridAttentionOptions,
  steps: readonly StepSetup[],
  name: string,
): Promise<void> {
  const outputs = await runSteps(await sharedGpu(), setupOf(options, sequences.length), steps);
  bySequence(steps, outputs, sequences.length).forEach((rows, s) => {
    const error = relativeError(rows, oracleOf(sequences[s], options));
    assert(error < TOLERANCE, `${name}: sequence ${s} of ${sequences[s].length}: error ${error}`);
  });
}

const LENGTHS = [1, 63, 64, 65, 130, 257];

for (const options of [LEAST, SMALL, WIDE]) {
  Deno.test({
    name: `hybridAttention() agrees with the f64 oracle, window ${options.window}`,
    ...shared,
    fn: async () => {
      const sequences = LENGTHS.map((length, i) => tokensAt(upTo(length), options, i + 1));
      await check(sequences, options, prefillSteps(sequences), "whole");
      await check(sequences, options, prefillSteps(sequences, [1, 3, 66, 129]), "cut");
    },
  });
  Deno.test({
    name: `hybridAttention() decodes from an empty state and from a prompt, window ${options.window}`,
    ...shared,
    fn: async () => {
      const { window } = options;
      const sequences = [2 * window + 5, window + 3].map((length, i) =>
        tokensAt(upTo(length), options, i + 20)
      );
      await check(sequences, options, decodeSteps(sequences, 2), "from 2");
      await check(sequences, options, decodeSteps(sequences, window + 1), "from a full window");
      if (window < 10) await check(sequences, options, decodeSteps(sequences, 0), "from the first");
    },
  });
}

Deno.test({
  name: "hybridAttention() goes by original positions where some are missing",
  ...shared,
  fn: async () => {
    for (const options of [SMALL, WIDE]) {
      const gaps = [0, 1, 3, 6, 7, 12, 13, 14, 20, 4096 * 7 + 3, 4096 * 7 + 5, 2 ** 24 + 1, 2 ** 24 + 3];
      const sparse = upTo(150).map((i) => 3 * i + (i % 4 === 0 ? 1 : 0));
      const sequences = [tokensAt(gaps, options, 31), tokensAt(sparse, options, 32)];
      await check(sequences, options, prefillSteps(sequences), "whole");
      await check(sequences, options, prefillSteps(sequences, [2, 5, 6, 9, 10, 12, 71]), "cut");
      const short = [sequences[0], sequences[1].slice(0, 20)];
      await check(short, options, decodeSteps(short, 2), "decoded");
      // Prefill after decoding.
      const mixed = [...decodeSteps(short.map((tokens) => tokens.slice(0, 8)), 3)];
      mixed.push({
        phase: "prefill",
        feeds: short.map((tokens, sequence) => ({ sequence, tokens: tokens.slice(8) })),
      });
      await check(short, options, mixed, "decoded and fed again");
    }
  },
});

Deno.test({
  name: "hybridAttention() takes rows of sequences in any order",
  ...shared,
  fn: async () => {
    const sequences = [5, 70, 9].map((length, i) => tokensAt(upTo(length), SMALL, i + 41));
    const [first, second] = prefillSteps(sequences, [4])
      .map((step) => ({ ...step, feeds: step.feeds.toReversed() }));
    const some = (with1: boolean): StepSetup => ({
      ...second,
      feeds: second.feeds.filter(({ sequence }) => (sequence === 1) === with1),
    });
    await check(sequences, SMALL, [first, some(false), some(true)], "in turns");
  },
});

Deno.test({
  name: "hybridAttention() takes large heads, and a window of more entries than threads",
  ...shared,
  fn: async () => {
    const options = { ...LEAST, heads: 2, headSize: 132, featureSize: 12, window: 300, scale: 0.1 };
    const sequences = [tokensAt([...upTo(70), ...upTo(12).map((i) => i + 290)], options, 52)];
    await check(sequences, options, prefillSteps(sequences, [67]), "prefill");
    await check(sequences, options, decodeSteps(sequences, 72), "decode");
  },
});

Deno.test({
  name: "hybridAttention() is stable for scores of 1e30",
  ...shared,
  fn: async () => {
    const sequences = [tokensAt(upTo(20), SMALL, 61), tokensAt(upTo(9), SMALL, 62)];
    const { q: [first, width], k } = columnRanges(SMALL);
    for (const tokens of sequences) {
      for (const { columns } of tokens) {
        for (let i = first; i < first + width; i++) columns[i] *= 1e30;
      }
    }
    await check(sequences, SMALL, prefillSteps(sequences), "prefill");
    await check(sequences, SMALL, decodeSteps(sequences, 4), "decode");
    // Beyond the range of f32: finite all the same.
    for (const { columns } of sequences[0]) columns.fill(-1e30, k[0], k[0] + k[1]);
    for (const steps of [prefillSteps(sequences), decodeSteps(sequences, 4)]) {
      const outputs = await runSteps(await sharedGpu(), setupOf(SMALL, 2), steps);
      assert(outputs.every((rows) => rows.every(Number.isFinite)));
    }
  },
});

Deno.test({
  name: "hybridAttention() changes nothing of a sequence that is done",
  ...shared,
  fn: async () => {
    const sequences = [tokensAt(upTo(12), SMALL, 71), tokensAt(upTo(12), SMALL, 72)];
    const others = [tokensAt(upTo(14), SMALL, 73), tokensAt(upTo(14), SMALL, 74)];
    const part = (tokens: readonly TokenSetup[][], from: number, to: number): StepSetup["feeds"] =>
      tokens.map((one, sequence) => ({ sequence, tokens: one.slice(from, to) }));
    const plain: StepSetup[] = [
      { phase: "prefill", feeds: part(sequences, 0, 9) },
      { phase: "decode", feeds: part(sequences, 9, 10) },
      { phase: "decode", feeds: part(sequences, 10, 11) },
      { phase: "prefill", feeds: part(sequences, 11, 12) },
    ];
    // Steps that no sequence takes part in any more, over the same positions and later ones.
    const late: StepSetup[] = [
      { phase: "prefill", feeds: part(others, 8, 14), done: [0, 1] },
      { phase: "decode", feeds: part(others, 9, 10), done: [0, 1] },
      { phase: "decode", feeds: part(others, 12, 13), done: [0, 1] },
    ];
    const gpu = await sharedGpu();
    const setup = setupOf(SMALL, 2);
    const want = await runSteps(gpu, setup, plain);
    const got = await runSteps(gpu, setup, [plain[0], ...late, plain[1], plain[2], ...late, plain[3]]);
    assertEquals([got[0], got[4], got[5], got[9]], want);
  },
});

Deno.test("hybridAttention() refuses what does not fit", () => {
  const trace = traceFor();
  const { rows } = trace.target;
  const inputs = Object.fromEntries(
    Object.entries(columnRanges(SMALL)).map(([name, [, width]]) => [name, trace.value(name, rows, width)]),
  ) as unknown as HybridInputs;
  const state = { name: "state.0", layer: 0, words: hybridStateWords(SMALL) };
  const call =
    (options: Partial<HybridAttentionOptions>, given: Partial<HybridInputs> = {}, of: typeof state = state) =>
    () => hybridAttention(trace, { ...inputs, ...given }, { ...SMALL, ...options }, of);
  const sizes: [Partial<HybridAttentionOptions>, string][] = [
    [{ headSize: 260 }, "headSize must be a multiple of 4 from 4 to 256: current value is 260"],
    [{ featureSize: 6 }, "featureSize must be a multiple of 4 from 4 to 1024: current value is 6"],
    [{ window: 0 }, "window must be a whole number from 1 to 1024: current value is 0"],
    [{ gate: 0 }, "gate must be over 0 and up to 1: current value is 0"],
    [{ gate: NaN }, "gate must be over 0 and up to 1: current value is NaN"],
  ];
  for (const [options, message] of sizes) assertThrows(call(options), RangeError, message);
  assertThrows(call({ heads: 3 }), TypeError, "heads must be a multiple of kvHeads: they are 3 and 2");
  assertThrows(
    call({}, { kFeatures: inputs.q }),
    TypeError,
    "kFeatures of hybrid attention needs width 16: it is 48",
  );
  const apart = trace.value("v", { ...rows, name: "others" }, 24);
  assertThrows(call({}, { v: apart }), TypeError, "q has rows, v has others");
  assertThrows(
    call({}, {}, { ...state, words: 8 }),
    RangeError,
    `takes ${hybridStateWords(SMALL)} numbers: current value is 8`,
  );
});
