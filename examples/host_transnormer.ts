// Attention maps of a TransNormer, computed on the host in f64 from the checkpoint: slow, short and independent of the kernels.

import { openCheckpoint } from "../lib/weights/mod.ts";
import { feature } from "./gradient_formulas.ts";

/** Kinds of a layer's attention. */
export type LayerKind = "diag" | "linear" | "norm";

/** What a prompt's attention looks like. Weights may be negative: they count by their absolute value. */
export interface TransNormerMaps {
  /**
   * By layer: the mean over the heads of the share of |weight| that row i gives key j, [tokens, tokens], row-major, 0 above
   * the diagonal. A head that gives nothing to any key (ReLU) is left out of its row's mean.
   */
  readonly layers: readonly Float32Array[];
  /** By layer: the share of negative weights in all |weight|, the mean over rows and heads. */
  readonly negative: readonly number[];
  /** Hidden states after the last norm [tokens, width], to compare with those of the GPU. */
  readonly hidden: Float64Array;
}

/** A TransNormer on the host. */
export interface HostTransNormer {
  /** Kinds of its layers. */
  readonly kinds: readonly LayerKind[];
  /** Computes a prompt's maps. */
  mapsOf(ids: readonly number[]): TransNormerMaps;
}

/** A weight [outputs, inputs] with a bias. */
interface Projection {
  readonly weight: Float32Array;
  readonly bias?: Float32Array;
}

/** Settings of `config.json` whose other values are not computed here. */
const ONLY: Readonly<Record<string, unknown>> = {
  model_type: "transnormer",
  rope_order: "after_feature_map",
  rope_layout: "interleaved",
  rope_projection: "identity",
  rope_trainable: false,
  norm_type: "simplermsnorm",
  norm_affine: false,
  norm_eps_placement: "inside_sqrt",
  position_embedding: "none",
  pre_norm: true,
  final_norm: true,
  denominator_rope: false,
};

/** Reads a TransNormer's weights once. */
export async function hostTransNormer(directory: string): Promise<HostTransNormer> {
  const config = JSON.parse(await Deno.readTextFile(`${directory}/config.json`));
  for (const [name, only] of Object.entries(ONLY)) {
    if (config[name] !== undefined && config[name] !== only) {
      throw new TypeError(
        `${name} ${JSON.stringify(config[name])} is not computed on the host: only ${only} is`,
      );
    }
  }
  const kinds: LayerKind[] = config.layer_types;
  if (!Array.isArray(kinds) || !kinds.every((kind) => ["diag", "linear", "norm"].includes(kind))) {
    throw new TypeError("Only a TransNormer of diag, linear and norm layers is computed on the host");
  }
  const { hidden_size: width, num_attention_heads: heads, head_dim: size, norm_eps: epsilon } = config;
  const block: number = config.diag_block_size;
  const relu = config.diag_score === "relu";
  const map: (x: number) => number = config.norm_feature_map === "elu"
    ? (x) => x > 0 ? x : Math.expm1(x)
    : feature;
  const gate: (x: number) => number = config.ffn_act === "swish" ? (x) => x / (1 + Math.exp(-x)) : (x) => x;

  using checkpoint = await openCheckpoint(directory);
  const read = async (name: string): Promise<Float32Array> => {
    const info = checkpoint.tensors.get(`model.${name}`);
    if (!info) throw new Error(`${directory} has no tensor model.${name}`);
    const values = new Float32Array(info.elements);
    await checkpoint.read(`model.${name}`, "f32", (bytes, first) => {
      values.set(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), first);
    });
    return values;
  };
  const projection = async (name: string): Promise<Projection> => ({
    weight: await read(`${name}.weight`),
    ...(checkpoint.tensors.has(`model.${name}.bias`) ? { bias: await read(`${name}.bias`) } : {}),
  });
  const table = await read("embed_tokens.weight");
  const blocks = await Promise.all(kinds.map(async (kind, layer) => {
    const of = (name: string) => projection(`layers.${layer}.${name}`);
    return {
      kind,
      query: await of("attn.q_proj"),
      key: await of("attn.k_proj"),
      value: await of("attn.v_proj"),
      output: await of("attn.o_proj"),
      gate: await of("ffn.l1"),
      up: await of("ffn.l2"),
      down: await of("ffn.l3"),
    };
  }));
  const scale: number = config.embedding_scale ?? (config.scale_embedding ? Math.sqrt(width) : 1);
  const frequencies = Float64Array.from({ length: size / 2 }, (_, i) => config.rope_theta ** (-2 * i / size));

  /** Simple RMSNorm of rows. */
  const norm = (x: Float64Array) => {
    const result = new Float64Array(x.length);
    for (let at = 0; at < x.length; at += width) {
      let squares = 0;
      for (let i = 0; i < width; i++) squares += x[at + i] ** 2;
      const by = 1 / Math.sqrt(squares / width + epsilon);
      for (let i = 0; i < width; i++) result[at + i] = x[at + i] * by;
    }
    return result;
  };
  /** Rotates pairs (2i, 2i + 1) of each head by their positions, in place. */
  const rotate = (x: Float64Array, positionOf: (row: number) => number) => {
    for (let at = 0; at < x.length; at += size) {
      const position = positionOf(Math.floor(at / width));
      for (let i = 0; i < size; i += 2) {
        const angle = position * frequencies[i / 2];
        const [cos, sin, a, b] = [Math.cos(angle), Math.sin(angle), x[at + i], x[at + i + 1]];
        x[at + i] = a * cos - b * sin;
        x[at + i + 1] = b * cos + a * sin;
      }
    }
  };

  /** One layer's attention of normed rows: what goes to the output projection, with the map. */
  const attention = (rows: Float64Array, { kind, ...weights }: typeof blocks[number]) => {
    const length = rows.length / width;
    const [q, k, v] = [weights.query, weights.key, weights.value].map((each) => product(rows, each, width));
    // The denominator takes features before the rotation, so that it stays positive.
    const sums = new Float64Array(length * heads);
    if (kind !== "diag") {
      for (const x of [q, k]) x.forEach((value, i) => x[i] = map(value));
      const seen = new Float64Array(width);
      for (let at = 0; at < q.length; at++) {
        seen[at % width] += k[at];
        sums[Math.floor(at / size)] += q[at] * seen[at % width];
      }
    }
    for (const x of [q, k]) rotate(x, kind === "diag" ? (row) => row % block : (row) => row);
    const shares = new Float32Array(length * length);
    const mixed = new Float64Array(q.length);
    let [negative, counted] = [0, 0];
    const row = new Float64Array(length);
    for (let i = 0; i < length; i++) {
      const first = kind === "diag" ? i - i % block : 0;
      let giving = 0;
      for (let head = 0; head < heads; head++) {
        const at = i * width + head * size;
        for (let j = first; j <= i; j++) {
          let sum = 0;
          for (let c = 0; c < size; c++) sum += q[at + c] * k[j * width + head * size + c];
          row[j] = sum;
        }
        weigh(
          row,
          first,
          i,
          kind === "diag" ? config.diag_scale : 1,
          kind !== "diag" ? "as is" : relu ? "relu" : "softmax",
        );
        const over = kind === "linear" ? sums[i * heads + head] : 1;
        let [all, below] = [0, 0];
        for (let j = first; j <= i; j++) {
          const weight = row[j] / over;
          all += Math.abs(row[j]);
          below += Math.max(0, -row[j]);
          for (let c = 0; c < size; c++) mixed[at + c] += weight * v[j * width + head * size + c];
        }
        if (all === 0) continue;
        giving++;
        counted++;
        negative += below / all;
        for (let j = first; j <= i; j++) shares[i * length + j] += Math.abs(row[j]) / all;
      }
      if (giving > 0) { for (let j = first; j <= i; j++) shares[i * length + j] /= giving; }
    }
    const normed = kind === "norm" || kind === "diag" && (config.diag_output_norm ?? relu);
    return { mixed: normed ? norm(mixed) : mixed, shares, negative: counted > 0 ? negative / counted : 0 };
  };

  return {
    kinds,
    mapsOf(ids) {
      const x = Float64Array.from(
        { length: ids.length * width },
        (_, i) => table[ids[Math.floor(i / width)] * width + i % width] * scale,
      );
      const add = (y: Float64Array) => y.forEach((value, i) => x[i] += value);
      const results = blocks.map((weights) => {
        const result = attention(norm(x), weights);
        add(product(result.mixed, weights.output, width));
        const fed = norm(x);
        const inner = product(fed, weights.gate, width);
        const up = product(fed, weights.up, width);
        inner.forEach((value, i) => inner[i] = gate(value) * up[i]);
        add(product(inner, weights.down, inner.length / ids.length));
        return result;
      });
      return {
        layers: results.map(({ shares }) => shares),
        negative: results.map((result) => result.negative),
        hidden: norm(x),
      };
    },
  };
}

/** Scores of keys `first` to `last` become weights, in place. */
function weigh(
  row: Float64Array,
  first: number,
  last: number,
  scale: number,
  how: "as is" | "relu" | "softmax",
): void {
  for (let j = first; j <= last; j++) row[j] = how === "relu" ? Math.max(0, row[j] * scale) : row[j] * scale;
  if (how !== "softmax") return;
  let [highest, sum] = [-Infinity, 0];
  for (let j = first; j <= last; j++) highest = Math.max(highest, row[j]);
  for (let j = first; j <= last; j++) sum += row[j] = Math.exp(row[j] - highest);
  for (let j = first; j <= last; j++) row[j] /= sum;
}

/** rows · weightᵀ + bias, rows of `width`. */
function product(rows: Float64Array, { weight, bias }: Projection, width: number): Float64Array {
  const outputs = weight.length / width;
  const result = new Float64Array(rows.length / width * outputs);
  for (let row = 0, at = 0; row < rows.length; row += width) {
    for (let output = 0; output < outputs; output++, at++) {
      let sum = bias ? bias[output] : 0;
      for (let i = 0; i < width; i++) sum += rows[row + i] * weight[output * width + i];
      result[at] = sum;
    }
  }
  return result;
}
