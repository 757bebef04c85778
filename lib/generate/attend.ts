// attend: one core over queries, keys and values that are given, through the kernels that models run.

import type { Gpu } from "../gpu/mod.ts";
import { createWeightStore, type Weight, type WeightView, whole } from "../graph/mod.ts";
import {
  attention,
  type AttentionShape,
  type Core,
  embedding,
  type ExtraProjection,
  lmHead,
  pipe,
} from "../layers/mod.ts";
import type { Model } from "../models/mod.ts";
import { forward } from "./forward.ts";

/** What {@linkcode attend} takes: matrices of f32, row-major, one row a token. */
export interface AttendInputs {
  /** Queries [tokens, heads · headSize], before any rotation. */
  readonly query: Float32Array;
  /** Keys [tokens, kvHeads · headSize]. */
  readonly key: Float32Array;
  /** Values [tokens, kvHeads · headSize]. */
  readonly value: Float32Array;
  /** Output gates [tokens, heads · headSize], for cores that take them. */
  readonly outputGate?: Float32Array;
  /** What decays are made from, for cores that take it. */
  readonly decay?: Float32Array;
  /** Strengths of writes [tokens, kvHeads] before the sigmoid, for cores that take them. */
  readonly beta?: Float32Array;
}

/** Options of {@linkcode attend}. */
export interface AttendOptions extends AttentionShape {
  /** Most tokens fed in one step; the state goes from step to step. Default: chosen by the number of tokens. */
  readonly sliceRows?: number;
}

/**
 * Runs a core over one sequence in f32 and returns what it puts out [tokens, heads · headSize]: the layer's values before the
 * output projection. For studying a core by itself: its forms, its gradients, its reach.
 *
 * @throws {RangeError} when a matrix does not hold a whole number of rows, the same for all.
 * @throws {TypeError} when the core needs a matrix that is not given.
 */
export async function attend(
  gpu: Gpu,
  core: Core,
  inputs: AttendInputs,
  options: AttendOptions,
): Promise<Float32Array<ArrayBuffer>> {
  const { heads, kvHeads, headSize } = options;
  const tokens = inputs.query.length / (heads * headSize);
  const parts = Object.entries({
    query: inputs.query,
    key: inputs.key,
    value: inputs.value,
    outputGate: inputs.outputGate,
    decay: inputs.decay,
    beta: inputs.beta,
  }).flatMap(([name, data]) => {
    if (!data) return [];
    const width = name === "key" || name === "value" ? kvHeads * headSize : data.length / tokens;
    if (
      tokens < 1 || !Number.isInteger(tokens) || !Number.isInteger(width) || data.length !== tokens * width
    ) {
      throw new RangeError(
        `${name} must hold ${tokens} rows of whole numbers of columns: it has ${data.length} numbers`,
      );
    }
    return [{ name, data, width }];
  });
  let columns = 0;
  const placed = parts.map((part) => {
    const first = columns;
    // What is no multiple of four wide would put its neighbours where kernels cannot read them in words of four.
    columns = Math.ceil((columns + part.width) / 4) * 4;
    if (part.name === "value") columns += 4;
    return { ...part, first };
  });
  const out = heads * headSize;
  const store = createWeightStore(gpu);
  try {
    const weight = async (name: string, rows: number, width: number, fill: (data: Float32Array) => void) => {
      const made: Weight = { name, rows, columns: width, dtype: "f32" };
      const data = new Float32Array(rows * width);
      fill(data);
      await store.allocate(made);
      store.write(made, 0, new Uint8Array(data.buffer));
      return made;
    };
    const identity = (size: number) => (data: Float32Array) => {
      for (let i = 0; i < size; i++) data[i * size + i] = 1;
    };
    const table = await weight("inputs", tokens, columns, (data) => {
      for (const { data: rows, width, first } of placed) {
        for (let row = 0; row < tokens; row++) {
          data.set(rows.subarray(row * width, (row + 1) * width), row * columns + first);
        }
      }
    });
    const projection = await weight("projections", columns, columns, identity(columns));
    const output = await weight("output", out, out, identity(out));
    const head = await weight("head", tokens, out, () => {});
    const views: Record<string, WeightView> = {};
    for (const { name, width, first } of placed) views[name] = { weight: projection, first, rows: width };
    const { query, key, value, ...extra } = views as Record<
      "query" | "key" | "value" | ExtraProjection,
      WeightView
    >;
    const { sliceRows, ...shape } = options;
    const layer = attention({
      ...shape,
      core,
      weights: { query, key, value, ...extra, output: whole(output) },
    });
    const model: Model = {
      directory: "",
      config: {
        modelType: "attend",
        vocabularySize: tokens,
        hiddenSize: out,
        contextLength: tokens,
        eosIds: [],
      },
      pipeline: pipe(embedding(table), layer, lmHead(head)),
      dtype: "f32",
      weights: [table, projection, output, head],
      store,
      defaults: { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, eosIds: [] },
      warnings: [],
      loadMs: 0,
      [Symbol.dispose]: () => {},
    };
    const { hidden } = await forward(model, [...Array(tokens).keys()], {
      hidden: true,
      lastOnly: true,
      ...(sliceRows === undefined ? {} : { sliceRows }),
    });
    return hidden!;
  } finally {
    store.release();
  }
}
