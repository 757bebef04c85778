// Policies of KV pruning over a naive Llama, in f64: whole attention rows, sorted scores, lists of tokens in the order of
// positions. What a policy scores by and how much it keeps are told by the test, written from the policy's definition.

import { score as logit, type Slot } from "../../oracles/attention.ts";
import {
  type CoreOracle,
  type CoreResult,
  type CoreRows,
  headsOf,
  type LlamaConfigJson,
  llamaOracle,
  type LlamaTensors,
  rotaryOracle,
} from "../../oracles/llama.ts";
import { largestIndex, topIndices } from "../../oracles/pyramid_infer_lengths.ts";

/** What a layer saw of a prompt. */
export interface PromptView {
  readonly layer: number;
  /** Positions of the layer's rows. */
  readonly positions: readonly number[];
  /** Tokens in the layer before them. */
  readonly past: number;
  /** Attention that row i's query head h pays to row j: `paid(i, h, j)`. */
  paid(row: number, head: number, column: number): number;
  /** Queries without rotation, `[row][head]`. */
  readonly queries: readonly (readonly Float64Array[])[];
  /** Keys with rotation, `[kvHead][row]`. */
  readonly keys: readonly (readonly Float64Array[])[];
  /** Values, `[kvHead][row]`. */
  readonly values: readonly (readonly Float64Array[])[];
  readonly heads: number;
  readonly kvHeads: number;
  /** Query heads of a KV head. */
  readonly group: number;
}

/** What decode does at the cap. */
export interface OracleEviction {
  readonly score: "sum" | "last" | "position";
  readonly window: number;
  readonly sinks: number;
}

/** What a layer does in a turn. */
export interface OracleLayer {
  /** Newest rows, kept in any case. */
  readonly window: number;
  /** First rows, kept in any case. Default: none. */
  readonly sinks?: number;
  /** Rows kept before the window, for each head. */
  readonly keepSlots: number;
  /** Hidden rows that go on before the window. Default: all. */
  readonly keepRows?: number;
  /** Most tokens of the turn; earlier ones come to them. */
  readonly capacity?: number;
}

/** A policy as its paper says it. */
export interface OraclePolicy {
  /** Scores of a layer's rows by KV head, as many lists as there are KV heads, or one for all; none: by position. */
  readonly score?: (view: PromptView) => number[][];
  /** What decode adds to. Default: the scores. */
  readonly noted?: (view: PromptView) => number[][];
  /** What is kept. */
  readonly layer: (
    turn: {
      readonly layer: number;
      readonly rows: number;
      readonly tokens: number;
      readonly maxTokens: number;
      readonly later: boolean;
    },
  ) => OracleLayer;
  /** Whether each KV head's slots have scores of their own in decode. */
  readonly perKvHead: boolean;
  /** Share of a layer's budget that each head is sure of; the rest is anybody's. */
  readonly spread?: number;
  /** What decode does. */
  readonly evicts?: OracleEviction;
  /** Sinks whose keys are rotated anew, so that they stand right before what is left after them. */
  readonly relativeSinks?: number;
}

/** What a turn left. */
export interface OracleResult {
  readonly ids: readonly number[];
  readonly logprobs: readonly number[];
  /** Positions after the prompt, by layer and KV head. */
  readonly promptKept: readonly (readonly (readonly number[])[])[];
  /** Positions at the end. */
  readonly kept: readonly (readonly (readonly number[])[])[];
}

interface Token extends Slot {
  readonly raw: Float64Array;
  score: number;
}

/** A sequence under a policy. */
export class PolicyOracle {
  /** Cuts between equal scores. */
  ties = 0;
  /** Least relative distance of the scores on both sides of any other cut. */
  leastGap = Infinity;
  /** Least distance of the two largest logits. */
  leastMargin = Infinity;
  /** Tokens evicted by decode so far. */
  evicted = 0;
  readonly #config: LlamaConfigJson;
  readonly #tensors: LlamaTensors;
  readonly #policy: OraclePolicy;
  readonly #tokens: Token[][][];
  #fed = 0;

  constructor(config: LlamaConfigJson, tensors: LlamaTensors, policy: OraclePolicy) {
    const { kvHeads } = headsOf(config);
    this.#config = config;
    this.#tensors = tensors;
    this.#policy = policy;
    this.#tokens = Array.from(
      { length: config.num_hidden_layers },
      () => Array.from({ length: kvHeads }, () => []),
    );
  }

  /** Feeds a prompt and goes on greedily. */
  turn(ids: readonly number[], maxTokens: number): OracleResult {
    const config = this.#config;
    const { vocab_size: vocabulary } = config;
    const later = this.#fed > 0;
    const caps: number[][] = [];
    const positions = ids.map((_, i) => this.#fed + i);
    const core: CoreOracle = (rows) => this.#prefill(rows, { tokens: ids.length, maxTokens, later }, caps);
    const prompt = llamaOracle(config, this.#tensors, ids, { positions, core });
    this.#fed += ids.length;
    const promptKept = this.#positions();
    const sampled: number[] = [];
    const logprobs: number[] = [];
    const sample = (logits: Float64Array): void => {
      const { index, margin } = largestIndex(logits);
      this.leastMargin = Math.min(this.leastMargin, margin);
      const all = logits.reduce((sum, value) => sum + Math.exp(value - logits[index]), 0);
      sampled.push(index);
      logprobs.push(-Math.log(all));
    };
    sample(prompt.logits.slice(-vocabulary));
    while (sampled.length < maxTokens) {
      const last = sampled.length === maxTokens - 1;
      const decode: CoreOracle = (rows) => this.#decode(rows, last ? [] : caps);
      const row = llamaOracle(config, this.#tensors, sampled.slice(-1), {
        positions: [this.#fed++],
        core: decode,
      });
      sample(row.logits);
    }
    return { ids: sampled, logprobs, promptKept, kept: this.#positions() };
  }

  #positions(): number[][][] {
    return this.#tokens.map((heads) => heads.map((own) => own.map(({ position }) => position)));
  }

  #attend(query: Float64Array, position: number, tokens: readonly Token[]) {
    const scale = 1 / Math.sqrt(query.length);
    const turned = rotaryOracle(this.#config)(query, position);
    const logits = tokens.map((token) =>
      token.position <= position ? logit(turned, token.key, scale) : -Infinity
    );
    const most = logits.reduce((a, b) => Math.max(a, b));
    const powers = logits.map((value) => Math.exp(value - most));
    const all = powers.reduce((a, b) => a + b);
    const weights = powers.map((value) => value / all);
    const value = new Float64Array(query.length);
    tokens.forEach((token, j) => token.value.forEach((x, d) => value[d] += weights[j] * x));
    return { weights, value };
  }

  #best(scores: readonly number[], count: number): number[] {
    const { indices, gap } = topIndices(scores, count);
    if (gap === 0) this.ties++;
    else this.leastGap = Math.min(this.leastGap, Math.abs(gap));
    return indices;
  }

  #news({ positions, keys, values }: CoreRows, head: number): Token[] {
    const rotated = rotaryOracle(this.#config);
    return positions.map((position, row) => ({
      position,
      raw: keys[row][head],
      key: rotated(keys[row][head], position),
      value: values[row][head],
      score: 0,
    }));
  }

  #prefill(
    rows: CoreRows,
    turn: { readonly tokens: number; readonly maxTokens: number; readonly later: boolean },
    caps: number[][],
  ): CoreResult {
    const { heads, kvHeads } = headsOf(this.#config);
    const group = heads / kvHeads;
    const { layer, positions, queries } = rows;
    const { spread, score, noted = score } = this.#policy;
    const plan = this.#policy.layer({ ...turn, layer, rows: positions.length });
    const sinks = plan.sinks ?? 0;
    const earlier = this.#tokens[layer];
    const past = earlier[0].length;
    const news = earlier.map((_, head) => this.#news(rows, head));
    const all = earlier.map((own, head) => [...own, ...news[head]]);
    const seen = this.#shifted(earlier).map((own, head) => [...own, ...news[head]]);
    const attended = queries.map((row, i) =>
      row.map((query, head) => this.#attend(query, positions[i], seen[Math.floor(head / group)]))
    );
    const view: PromptView = {
      layer,
      positions,
      past,
      paid: (row, head, column) =>
        attended[row][head].weights[earlier[Math.floor(head / group)].length + column],
      queries,
      keys: news.map((own) => own.map(({ key }) => key)),
      values: news.map((own) => own.map(({ value }) => value)),
      heads,
      kvHeads,
      group,
    };
    const window = Math.min(plan.window, positions.length);
    const context = positions.length - window;
    const guarded = (scores: readonly number[]) =>
      scores.slice(0, context).map((value, j) => j < sinks ? Infinity : value);
    const scores = score?.(view) ?? [positions.map(() => 0)];
    const byHead = news.map((_, head) => guarded(scores.length === 1 ? scores[0] : scores[head]));
    const keeps = spread === undefined || turn.later
      ? byHead.map(() => plan.keepSlots)
      : this.#spread(byHead, plan.keepSlots, spread);
    const initial = noted?.(view) ?? [positions.map(() => 0)];
    news.forEach((own, head) =>
      own.forEach((token, j) => token.score = (initial.length === 1 ? initial[0] : initial[head])[j])
    );
    const chosen = byHead.map((own, head) =>
      score ? this.#best(own, keeps[head]) : [...own.keys()].slice(0, keeps[head])
    );
    this.#tokens[layer] = all.map((own, head) => [
      ...own.slice(0, earlier[head].length),
      ...chosen[head].map((j) => news[head][j]),
      ...news[head].slice(context),
    ]);
    const capacity = plan.capacity ?? Infinity;
    // A head's room beyond what it keeps is the same for all heads.
    caps[layer] = earlier.map((own, head) => own.length + capacity + keeps[head] - plan.keepSlots);
    const { keepRows = context } = plan;
    const shared = guarded(positions.map((_, j) => scores.reduce((sum, own) => sum + own[j], 0)));
    const kept = [
      ...(keepRows < context ? this.#best(shared, keepRows) : shared.keys()),
      ...positions.keys().drop(context),
    ];
    return { values: kept.map((row) => attended[row].map(({ value }) => value)), kept };
  }

  /** Sinks where they stand now: right before the oldest other token. */
  #shifted(tokens: readonly (readonly Token[])[]): Token[][] {
    const { relativeSinks = 0 } = this.#policy;
    const rotated = rotaryOracle(this.#config);
    return tokens.map((own) => {
      const next = own.find(({ position }) => position >= relativeSinks)?.position ?? relativeSinks;
      return own.map((token) =>
        token.position < relativeSinks
          ? { ...token, key: rotated(token.raw, token.position + next - relativeSinks) }
          : token
      );
    });
  }

  /** How many each head keeps: its floor, and those of the others that are best of all. */
  #spread(byHead: readonly number[][], keep: number, share: number): number[] {
    const sure = byHead.map((own) => topIndices(own, Math.floor(share * keep)).indices);
    const rest = byHead.flatMap((own, head) =>
      own.map((value, j) => ({ value, j, head })).filter(({ j }) => !sure[head].includes(j))
    );
    const count = Math.min(rest.length, byHead.length * keep - sure.flat().length);
    const won = this.#best(rest.map(({ value }) => value), count);
    return byHead.map((_, head) => sure[head].length + won.filter((i) => rest[i].head === head).length);
  }

  #decode(rows: CoreRows, caps: readonly (readonly number[])[]): CoreResult {
    const { heads, kvHeads } = headsOf(this.#config);
    const group = heads / kvHeads;
    const { layer, positions: [position], queries: [queries] } = rows;
    const { evicts } = this.#policy;
    const tokens = this.#tokens[layer];
    tokens.forEach((own, head) => own.push(...this.#news(rows, head)));
    const shifted = this.#shifted(tokens);
    const attended = queries.map((query, head) =>
      this.#attend(query, position, shifted[Math.floor(head / group)])
    );
    tokens.forEach((own, kvHead) => {
      const heard = this.#policy.perKvHead ? attended.slice(kvHead * group, (kvHead + 1) * group) : attended;
      own.forEach((token, j) => {
        const paid = heard.reduce((sum, { weights }) => sum + weights[j], 0) / heard.length;
        token.score = evicts?.score === "sum" ? token.score + paid : paid;
      });
    });
    if (evicts) {
      this.#tokens[layer] = tokens.map((own, head) => {
        if (caps.length === 0 || own.length < caps[layer][head]) return own;
        const may = own.filter((token) =>
          token.position >= evicts.sinks && token.position < position + 1 - evicts.window
        );
        const scores = may.map((token) => evicts.score === "position" ? token.position : token.score);
        // All but the worst stay; of equally bad ones the first goes, so that the order is turned round.
        const stay = this.#best(scores.toReversed(), may.length - 1);
        const out = may.toReversed().find((_, i) => !stay.includes(i));
        if (!out) throw new Error(`Nothing may be evicted in layer ${layer} at ${position}`);
        this.evicted++;
        return own.filter((token) => token !== out);
      });
    }
    return { values: [attended.map(({ value }) => value)] };
  }
}
