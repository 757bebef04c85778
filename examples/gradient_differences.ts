// Derivatives of attention by its scores, by central differences through the kernels that models run: every experiment is a
// head of its own, one of a pair with a score a step up, the other with it a step down.

import { softmaxCore } from "../lib/layers/mod.ts";
import { attend, type Gpu, linearAttention, normAttention } from "../mod.ts";
import {
  dot,
  equalScoresDerivative,
  feature,
  featureInverse,
  type Form,
  rowGradient,
} from "./gradient_formulas.ts";
import { randomNumbers } from "./notes_text.ts";

/** Columns [rows][size] of one head, as the kernels get them. */
type Rows = Float32Array[];

/** One head's queries, keys and values. */
interface Experiment {
  readonly query: Rows;
  readonly key: Rows;
  readonly value: Rows;
}

/** Steps of the differences. */
export interface Steps {
  /** Softmax: the score's own. */
  readonly softmax: number;
  /** The others: a share of the score. */
  readonly relative: number;
}

/** Heads that run at once. */
const HEADS = 8;

/** The shipped core of a form; features are 1 + elu, and each head is normed by itself. */
function coreOf(form: Form, causal: boolean) {
  if (form.kind === "softmax") return softmaxCore();
  if (form.kind === "linear") return linearAttention({ causal, rotation: "none" });
  const { epsilon, placement } = form;
  return normAttention({ causal, rotation: "none", perHead: true, epsilon, epsilonPlacement: placement });
}

/** What each experiment puts out, [rows][size]. */
async function outputs(
  gpu: Gpu,
  form: Form,
  causal: boolean,
  experiments: readonly Experiment[],
): Promise<Rows[]> {
  const results: Rows[] = [];
  for (let first = 0; first < experiments.length; first += HEADS) {
    const group = experiments.slice(first, first + HEADS);
    const rows = group[0].query.length;
    const size = group[0].query[0].length;
    const width = group.length * size;
    const packed = (name: keyof Experiment) => {
      const data = new Float32Array(rows * width);
      group.forEach((each, head) => each[name].forEach((row, i) => data.set(row, i * width + head * size)));
      return data;
    };
    const inputs = { query: packed("query"), key: packed("key"), value: packed("value") };
    const shape = { heads: group.length, kvHeads: group.length, headSize: size };
    const out = await attend(gpu, coreOf(form, causal), inputs, shape);
    results.push(
      ...group.map((_, head) =>
        Array.from(
          { length: rows },
          (_, i) => out.subarray(i * width + head * size, i * width + (head + 1) * size),
        )
      ),
    );
  }
  return results;
}

/** The score that a query and a key have, in f64 from what the kernels get. */
function scoreOf(form: Form, query: Float32Array, key: Float32Array): number {
  if (form.kind === "softmax") return dot(query, key) / Math.sqrt(query.length);
  return dot(Float64Array.from(query, feature), Float64Array.from(key, feature));
}

/** One point of the first picture. */
export interface EqualScoresPoint {
  readonly score: number;
  /** The largest |dp_j / ds_k|, by differences. */
  readonly measured: number;
  /** The same in closed form. */
  readonly closed: number;
  /** The derivative of the same weight by the key itself, its length, by differences. */
  readonly byKey: number;
}

/**
 * All queries and keys the same, such that all scores are equal; values are unit vectors, so that what comes out of the last
 * row is its weights. The first key moves along all of its components.
 */
export async function equalScores(
  gpu: Gpu,
  form: Form,
  keys: number,
  scores: readonly number[],
  steps: Steps,
): Promise<EqualScoresPoint[]> {
  const size = keys;
  const value = Array.from({ length: keys }, (_, j) => {
    const unit = new Float32Array(size);
    unit[j] = 1;
    return unit;
  });
  const pairs = scores.map((score) => {
    const root = Math.sqrt(size);
    // Each component c of a feature has size · c² = s; in softmax sqrt(size) · c² = s.
    const c = Math.sqrt(form.kind === "softmax" ? score / root : score / size);
    const row = (number: number) =>
      new Float32Array(size).fill(form.kind === "softmax" ? number : featureInverse(number));
    const query = row(c);
    const moved = [-1, 1].map((sign) =>
      form.kind === "softmax"
        ? row(c + sign * steps.softmax / (root * c))
        : row(c * (1 + sign * steps.relative))
    );
    return { score, query, moved };
  });
  const experiments = pairs.flatMap(({ query, moved }) =>
    moved.map((first) => ({
      query: value.map(() => query),
      key: value.map((_, j) => j === 0 ? first : query),
      value,
    }))
  );
  // A row sees only earlier ones, as in a language model: the last one sees all.
  const out = await outputs(gpu, form, true, experiments);
  return pairs.map(({ score, query, moved: [low, high] }, i) => {
    const [below, above] = [out[2 * i][keys - 1], out[2 * i + 1][keys - 1]];
    const step = scoreOf(form, query, high) - scoreOf(form, query, low);
    const changes = Array.from(above, (weight, j) => Math.abs(weight - below[j]));
    const keyStep = Math.hypot(...Array.from(high, (x, j) => x - low[j]));
    return {
      score,
      measured: Math.max(...changes) / step,
      closed: equalScoresDerivative(form, score, keys),
      byKey: changes[0] / keyStep,
    };
  });
}

/** Random queries, keys, values and a gradient of a loss by the output, [rows][size]. */
export interface RandomInput {
  readonly query: Rows;
  readonly key: Rows;
  readonly value: Rows;
  readonly gradient: Rows;
}

/** Normally distributed rows, always the same for a seed. */
export function randomInput(rows: number, size: number, seed: number): RandomInput {
  const random = randomNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const matrix = () => Array.from({ length: rows }, () => Float32Array.from({ length: size }, normal));
  return { query: matrix(), key: matrix(), value: matrix(), gradient: matrix() };
}

/** One point of the sweep. */
export interface SweepPoint {
  /** What features are multiplied by; scores by its square. */
  readonly scale: number;
  /** The largest |dL / ds_ij|, by differences. */
  readonly measured: number;
  /** The same in closed form. */
  readonly closed: number;
  /** The largest difference of both over all i and j, over the largest derivative. */
  readonly apart: number;
}

/**
 * All derivatives dL / ds_ij of L = Σ gradient · output, with features 1 + elu times a scale. Every row sees every key; in
 * softmax, whose kernels are causal, the earlier ones.
 */
export async function sweepScale(
  gpu: Gpu,
  form: Form,
  input: RandomInput,
  scales: readonly number[],
  steps: Steps,
): Promise<SweepPoint[]> {
  const { value, gradient } = input;
  const size = value[0].length;
  const causal = form.kind === "softmax";
  const points: SweepPoint[] = [];
  for (const scale of scales) {
    // Softmax has the same scores: the features are its queries and keys, without their 1 / sqrt(size).
    const map = (x: number, times = 1) =>
      form.kind === "softmax"
        ? times * scale * feature(x) * size ** 0.25
        : featureInverse(times * scale * feature(x));
    const query = input.query.map((row) => row.map((x) => map(x)));
    const key = input.key.map((row) => row.map((x) => map(x)));
    const middle = Float64Array.from(
      { length: size },
      (_, c) => query.reduce((sum, row) => sum + row[c], 0) / query.length,
    );
    const along = steps.softmax * Math.sqrt(size) / dot(middle, middle);
    const moved = key.map((row, j) =>
      [-1, 1].map((sign) =>
        form.kind === "softmax"
          ? row.map((x, c) => x + sign * along * middle[c])
          : input.key[j].map((x) => map(x, 1 + sign * steps.relative))
      )
    );
    const experiments = moved.flatMap((pair, j) =>
      pair.map((row) => ({ query, key: key.map((other, i) => i === j ? row : other), value }))
    );
    const out = await outputs(gpu, form, causal, experiments);
    let [measured, closed, apart] = [0, 0, 0];
    query.forEach((row, i) => {
      const seen = causal ? i + 1 : key.length;
      const scores = key.slice(0, seen).map((each) => scoreOf(form, row, each));
      const { derivatives } = rowGradient(form, scores, value.slice(0, seen), gradient[i]);
      derivatives.forEach((derivative, j) => {
        const step = scoreOf(form, row, moved[j][1]) - scoreOf(form, row, moved[j][0]);
        const change = dot(gradient[i], out[2 * j + 1][i]) - dot(gradient[i], out[2 * j][i]);
        measured = Math.max(measured, Math.abs(change / step));
        closed = Math.max(closed, Math.abs(derivative));
        apart = Math.max(apart, Math.abs(change / step - derivative));
      });
    });
    points.push({ scale, measured, closed, apart: apart / closed });
  }
  return points;
}
