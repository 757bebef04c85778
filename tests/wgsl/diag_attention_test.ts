import { assert, assertEquals, assertThrows } from "@std/assert";
import { diagAttention, type DiagAttentionOptions, diagStateWords } from "../../lib/ops/diag_attention.ts";
import { relativeError } from "../harness/compare.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { diagAttention as oracle, type DiagRow } from "../oracles/diag_attention.ts";
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

const SMALL: DiagAttentionOptions = {
  heads: 4,
  kvHeads: 2,
  headSize: 12,
  block: 7,
  score: "softmax",
  scale: 0.7,
  causal: true,
};
const WIDE: DiagAttentionOptions = {
  heads: 2,
  kvHeads: 2,
  headSize: 20,
  block: 64,
  score: "softmax",
  scale: 0.25,
  causal: true,
};

/** Columns of a token: queries, something else, keys, values. */
function setupOf(options: DiagAttentionOptions, sequences: number): OpSetup {
  const { heads, kvHeads, headSize, causal } = options;
  const [q, kv] = [heads * headSize, kvHeads * headSize];
  const words = diagStateWords(options);
  return {
    sequences,
    width: q + 4 + 2 * kv,
    ...(causal ? { stateWords: words } : {}),
    build: (trace, columns) => {
      const projections = {
        q: columnsOf(trace, columns, 0, q),
        k: columnsOf(trace, columns, q + 4, kv),
        v: columnsOf(trace, columns, q + 4 + kv, kv),
      };
      return diagAttention(
        trace,
        projections,
        options,
        causal ? { name: "state.0", layer: 0, words } : undefined,
      );
    },
  };
}

/** Random tokens at these positions. */
function tokensAt(positions: readonly number[], options: DiagAttentionOptions, seed: number): TokenSetup[] {
  const { width } = setupOf(options, 1);
  const columns = randomArray(positions.length * width, seed, 2);
  return positions.map((position, i) => ({ position, columns: columns.slice(i * width, (i + 1) * width) }));
}

function upTo(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}

function oracleOf(tokens: readonly TokenSetup[], options: DiagAttentionOptions): Float64Array {
  const { heads, kvHeads, headSize, padToken } = options;
  const [q, kv] = [heads * headSize, kvHeads * headSize];
  return oracle(
    tokens.map(({ position, columns, token }): DiagRow => ({
      position,
      q: columns.subarray(0, q),
      k: columns.subarray(q + 4, q + 4 + kv),
      v: columns.subarray(q + 4 + kv, q + 4 + 2 * kv),
      pad: padToken !== undefined && token === padToken,
    })),
    options,
  );
}

/** Runs steps and compares every sequence with the oracle; gives what came out. */
async function check(
  sequences: readonly TokenSetup[][],
  options: DiagAttentionOptions,
  steps: readonly StepSetup[],
  name: string,
): Promise<Float32Array[]> {
  const outputs = await runSteps(await sharedGpu(), setupOf(options, sequences.length), steps);
  const got = bySequence(steps, outputs, sequences.length);
  got.forEach((rows, s) => {
    const error = relativeError(rows, oracleOf(sequences[s], options));
    assert(error < TOLERANCE, `${name}: sequence ${s} of ${sequences[s].length}: error ${error}`);
  });
  return got;
}

const LENGTHS = [1, 63, 64, 65, 130, 257];

for (const options of [SMALL, WIDE]) {
  for (const score of ["softmax", "relu"] as const) {
    const own = { ...options, score };
    const sequences = LENGTHS.map((length, i) => tokensAt(upTo(length), own, i + 1));
    Deno.test({
      name: `diagAttention() agrees with the f64 oracle, causal ${score}, block ${own.block}`,
      ...shared,
      fn: async () => {
        const whole = await check(sequences, own, prefillSteps(sequences), "whole");
        const cut = await check(sequences, own, prefillSteps(sequences, [1, 3, 66, 129]), "cut");
        // A row's sums do not depend on where the steps begin.
        assertEquals(cut, whole);
      },
    });
    Deno.test({
      name: `diagAttention() agrees with the f64 oracle, bidirectional ${score}, block ${own.block}`,
      ...shared,
      fn: async () => {
        await check(sequences, { ...own, causal: false }, prefillSteps(sequences), "bidirectional");
      },
    });
    Deno.test({
      name: `diagAttention() decodes ${score} over block borders, block ${own.block}`,
      ...shared,
      fn: async () => {
        const { block } = own;
        const short = [tokensAt(upTo(3 * block + 3), own, 20), tokensAt(upTo(block + 2), own, 21)];
        const from = block - 2;
        await check(short, own, decodeSteps(short, from), `from ${from}`);
        if (block < 10) await check(short, own, decodeSteps(short, 0), "from the first");
      },
    });
  }
}

Deno.test({
  name: "diagAttention() goes by original positions where some are missing",
  ...shared,
  fn: async () => {
    const gaps = [0, 1, 3, 6, 7, 12, 13, 14, 20, 4096 * 7 + 3, 4096 * 7 + 5, 2 ** 24 + 1, 2 ** 24 + 3];
    const sparse = upTo(150).map((i) => 3 * i + (i % 4 === 0 ? 1 : 0));
    const sequences = [tokensAt(gaps, SMALL, 31), tokensAt(sparse, SMALL, 32)];
    const whole = await check(sequences, SMALL, prefillSteps(sequences), "whole");
    const cut = await check(sequences, SMALL, prefillSteps(sequences, [2, 5, 10, 12, 71]), "cut");
    assertEquals(cut, whole);
    const short = [sequences[0], sequences[1].slice(0, 20)];
    await check(short, SMALL, decodeSteps(short, 2), "decoded");
    const bidirectional = { ...SMALL, causal: false };
    await check(sequences, bidirectional, prefillSteps(sequences), "bidirectional");
  },
});

Deno.test({
  name: "diagAttention() takes blocks of 1 and 1024 and heads of 4 and 256",
  ...shared,
  fn: async () => {
    const one = { ...SMALL, heads: 1, kvHeads: 1, headSize: 4, block: 1 };
    const ones = [tokensAt(upTo(5), one, 41)];
    await check(ones, one, prefillSteps(ones), "block 1");
    await check(ones, one, decodeSteps(ones, 2), "block 1 decoded");
    const large = { ...SMALL, heads: 1, kvHeads: 1, headSize: 256, block: 1024, scale: 1 / 16 };
    const long = [tokensAt([...upTo(70), 1022, 1023, 1024, 1025], large, 42)];
    await check(long, large, prefillSteps(long, [40]), "block 1024");
    await check(long, large, decodeSteps(long, 69), "block 1024 decoded");
  },
});

Deno.test({
  name: "diagAttention() does not see padding",
  ...shared,
  fn: async () => {
    const softmax = { ...SMALL, block: 5, padToken: 9 };
    // A block of padding alone, and some at the beginning and the end of others.
    const sequences = [
      tokensAt(upTo(24), softmax, 51).map((token, i) => ({
        ...token,
        token: i < 2 || (i >= 5 && i < 10) || i === 14 || i > 21 ? 9 : 1,
      })),
    ];
    await check(sequences, softmax, prefillSteps(sequences, [1, 17]), "softmax");
    await check(sequences, softmax, decodeSteps(sequences, 1), "softmax decoded");
    const relu = { ...softmax, score: "relu" as const, causal: false };
    await check(sequences, relu, prefillSteps(sequences), "relu bidirectional");
  },
});

Deno.test({
  name: "diagAttention() is stable for scores of 1e30",
  ...shared,
  fn: async () => {
    const sequences = [tokensAt(upTo(20), SMALL, 61), tokensAt(upTo(9), SMALL, 62)];
    const queries = SMALL.heads * SMALL.headSize;
    for (const tokens of sequences) {
      for (const { columns } of tokens) {
        for (let i = 0; i < queries; i++) columns[i] *= 1e30;
      }
    }
    await check(sequences, SMALL, prefillSteps(sequences), "prefill");
    await check(sequences, SMALL, decodeSteps(sequences, 4), "decode");
    // Beyond the range of f32: finite all the same.
    for (const { columns } of sequences[0]) columns.fill(-1e30, queries + 4, queries + 28);
    for (const steps of [prefillSteps(sequences), decodeSteps(sequences, 4)]) {
      const outputs = await runSteps(await sharedGpu(), setupOf(SMALL, 2), steps);
      assert(outputs.every((rows) => rows.every(Number.isFinite)));
    }
  },
});

Deno.test({
  name: "diagAttention() stores nothing of a sequence that is done",
  ...shared,
  fn: async () => {
    const sequences = [tokensAt(upTo(12), SMALL, 71), tokensAt(upTo(12), SMALL, 72)];
    const others = [tokensAt(upTo(12), SMALL, 73), tokensAt(upTo(12), SMALL, 74)];
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
      { phase: "prefill", feeds: part(others, 7, 12), done: [0, 1] },
      { phase: "decode", feeds: part(others, 9, 10), done: [0, 1] },
    ];
    const gpu = await sharedGpu();
    const setup = setupOf(SMALL, 2);
    const want = await runSteps(gpu, setup, plain);
    const got = await runSteps(gpu, setup, [plain[0], ...late, plain[1], plain[2], ...late, plain[3]]);
    assertEquals([got[0], got[3], got[4], got[7]], want);
  },
});

/** fill(s)[i, j] = sin(0.7 i + 1.3 j + s) over 6 rows of 8, with keys and queries rotated within blocks of 4. */
function referenceTokens(): TokenSetup[] {
  const turned = (row: number, shift: number, block: number): number[] => {
    const x = Array.from({ length: 8 }, (_, j) => Math.sin(0.7 * row + 1.3 * j + shift));
    return x.map((value, j) => {
      const angle = row % block * 10000 ** (-2 * Math.floor(j % 4 / 2) / 4);
      return j % 2 === 0
        ? value * Math.cos(angle) - x[j + 1] * Math.sin(angle)
        : value * Math.cos(angle) + x[j - 1] * Math.sin(angle);
    });
  };
  return upTo(6).map((i) => ({
    position: i,
    columns: Float32Array.from([
      ...turned(i, 0.5, 4),
      0,
      0,
      0,
      0,
      ...turned(i, 1.1, 4),
      ...turned(i, 2.3, 1),
    ]),
  }));
}

Deno.test({
  name: "diagAttention() gives the reference vectors of TransNormer's T1 and T2",
  ...shared,
  fn: async () => {
    const tokens = [referenceTokens()];
    const options = { heads: 2, kvHeads: 2, headSize: 4, block: 4, scale: 0.5, causal: true };
    const run = async (score: "softmax" | "relu"): Promise<Float32Array> =>
      (await runSteps(await sharedGpu(), setupOf({ ...options, score }, 1), prefillSteps(tokens)))[0];
    const close = (got: ArrayLike<number>, want: readonly number[]): void =>
      want.forEach((value, i) => assert(Math.abs(got[i] - value) < 1e-5, `${got[i]} is not ${value}`));

    const softmax = await run("softmax");
    close(softmax.subarray(40), [
      -0.678907,
      0.444406,
      0.916662,
      0.046007,
      -0.887117,
      -0.535131,
      0.600823,
      0.85657,
    ]);
    close(softmax.subarray(16, 24), [
      0.10253,
      -0.789703,
      -0.525019,
      0.508819,
      0.756521,
      -0.188285,
      -0.857253,
      -0.270343,
    ]);
    close([softmax.reduce((a, b) => a + b)], [-3.193642]);

    const relu = await run("relu");
    const normed = relu.map((value, i) => {
      const row = relu.subarray(i - i % 8, i - i % 8 + 8);
      return value / (Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / 8) + 1e-8);
    });
    close(normed.subarray(40), [
      -1.222214,
      0.80114,
      1.650822,
      0.082046,
      -1.068411,
      -0.638268,
      0.726939,
      1.027178,
    ]);
    close([normed.reduce((a, b) => a + b)], [-5.699365]);
  },
});

Deno.test("diagAttention() refuses what does not fit", () => {
  const trace = traceFor();
  const { rows } = trace.target;
  const [q, kv, other] = [48, 24, 20].map((width) => trace.value("x", rows, width));
  const state = { name: "state.0", layer: 0, words: diagStateWords(SMALL) };
  const call =
    (options: Partial<DiagAttentionOptions>, given = state as typeof state | undefined, k = kv) => () =>
      diagAttention(trace, { q, k, v: kv }, { ...SMALL, ...options }, given);
  assertThrows(
    call({ block: 1025 }),
    RangeError,
    "block must be a whole number from 1 to 1024: current value is 1025",
  );
  assertThrows(
    call({ block: 0.5 }),
    RangeError,
    "block must be a whole number from 1 to 1024: current value is 0.5",
  );
  assertThrows(
    call({ headSize: 260 }),
    RangeError,
    "headSize must be a multiple of 4 from 4 to 256: current value is 260",
  );
  assertThrows(call({ heads: 3 }), TypeError, "heads must be a multiple of kvHeads: they are 3 and 2");
  assertThrows(
    call({}, state, other),
    TypeError,
    "Queries need 4 heads of 12, keys and values 2: widths are 48, 20 and 24",
  );
  assertThrows(
    () => diagAttention(trace, { q, k: kv, v: kv }, SMALL),
    TypeError,
    "give it a recurrent state",
  );
  assertThrows(call({ causal: false }), TypeError, "give it no recurrent state");
  assertThrows(
    call({}, { ...state, words: 8 }),
    RangeError,
    `takes ${diagStateWords(SMALL)} numbers: current value is 8`,
  );
  const decode = traceFor(rows, { phase: "decode" });
  assertThrows(
    () => diagAttention(decode, { q, k: kv, v: kv }, { ...SMALL, causal: false }),
    TypeError,
    "cannot decode token by token",
  );
});
