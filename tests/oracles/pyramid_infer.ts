// PyramidInfer (arXiv:2405.12532, with the semantics of its released code) over a naive Llama, in f64: full attention
// rows, sorted scores, token lists in the order of positions. Nothing is planned ahead, nothing is kept as a running sum.

import { score as logit, type Slot } from "./attention.ts";
import {
  type CoreOracle,
  type CoreResult,
  type CoreRows,
  headsOf,
  type LlamaConfigJson,
  llamaOracle,
  type LlamaTensors,
  rotaryOracle,
} from "./llama.ts";
import { largestIndex, lengthsOf, shareOf, topIndices } from "./pyramid_infer_lengths.ts";
import type { PyramidInferSettings } from "./pyramid_infer_lengths.ts";

export type { PyramidInferSettings } from "./pyramid_infer_lengths.ts";

/** Score of a token that nothing has scored: it goes last. */
const UNSCORED = 3e38;

/** A token as a KV head keeps it. */
interface Token extends Slot {
  score: number;
  /** Attention that the rows of this turn's decode paid to it, by their numbers. */
  readonly paid: Map<number, number>;
}

/** What the heads of a layer keep; heads that keep the same tokens still have lists of their own. */
interface LayerState {
  tokens: Token[][];
  /** Tokens before it were compressed already or belong to the prompt. */
  mark: number;
  /** Tokens at this position and later are not scored for good yet. */
  frontier: number;
  /** Most live tokens in this turn. */
  capacity: number;
}

/** A turn: what is fed, and how far it goes on. */
export interface OracleTurn {
  /** Tokens fed at once. */
  readonly ids: readonly number[];
  /** Most new tokens, as planned. */
  readonly maxTokens: number;
  /** Sampled tokens that are fed again before the turn ends. Default: all but the last of `maxTokens`. */
  readonly feed?: number;
  /** Tokens that are fed instead of sampled ones. */
  readonly forced?: readonly number[];
  /** Settings of this turn that differ from the sequence's: those that a budget was solved with. */
  readonly settings?: Partial<PyramidInferSettings>;
}

/** What a turn left. */
export interface OracleTurnResult {
  /** Sampled tokens, greedily: one more than were fed. */
  readonly ids: readonly number[];
  /** Log-probability of each. */
  readonly logprobs: readonly number[];
  /** Rows that were left after prefill's last layer, normed: [rows, hidden_size]. */
  readonly hidden: Float64Array;
  /** Their positions. */
  readonly hiddenPositions: readonly number[];
  /** Positions after the prompt, by layer and KV head, ascending. */
  readonly promptKept: readonly (readonly (readonly number[])[])[];
  /** The same tokens with their keys, rotated, and values. */
  readonly promptSlots: readonly (readonly (readonly Slot[])[])[];
  /** Positions at the end. */
  readonly kept: readonly (readonly (readonly number[])[])[];
  /** The same tokens with their keys, rotated, and values. */
  readonly slots: readonly (readonly (readonly Slot[])[])[];
  /** As `kept`, after each row that was fed. */
  readonly history: readonly (readonly (readonly (readonly number[])[])[])[];
  /** Tokens compressed away and evicted. */
  readonly dropped: { readonly selected: number; readonly compressed: number; readonly evicted: number };
}

/** A sequence. */
export interface PyramidInferOracle {
  /** Feeds a turn and goes on greedily. */
  turn(turn: OracleTurn): OracleTurnResult;
  /** Least relative distance of the scores on both sides of a cut, over all choices so far. */
  readonly leastGap: number;
  /** Least distance of the two largest logits, over all samples so far. */
  readonly leastMargin: number;
}

/** Begins a sequence. Keys, rotated, and values are kept as `stored` makes them. */
export function pyramidInferOracle(
  config: LlamaConfigJson,
  tensors: LlamaTensors,
  base: PyramidInferSettings,
  stored: (vector: Float64Array) => Float64Array = (vector) => vector,
): PyramidInferOracle {
  const { heads, kvHeads, headSize } = headsOf(config);
  const layerCount = config.num_hidden_layers;
  const group = heads / kvHeads;
  const scale = 1 / Math.sqrt(headSize);
  const rotated = rotaryOracle(config);
  const layers = Array.from({ length: layerCount }, (): LayerState => ({
    tokens: Array.from({ length: kvHeads }, () => []),
    mark: 0,
    frontier: 0,
    capacity: Infinity,
  }));
  let fed = 0;
  let leastGap = Infinity;
  let leastMargin = Infinity;

  /** Attention of one query over tokens: all weights, and the sum of values. */
  const attend = (query: Float64Array, position: number, tokens: readonly Token[]) => {
    const turned = rotated(query, position);
    const logits = tokens.map((token) =>
      token.position <= position ? logit(turned, token.key, scale) : -Infinity
    );
    const most = logits.reduce((a, b) => Math.max(a, b));
    const powers = logits.map((value) => Math.exp(value - most));
    const all = powers.reduce((a, b) => a + b);
    const weights = powers.map((value) => value / all);
    const value = new Float64Array(headSize);
    tokens.forEach((token, j) => token.value.forEach((x, d) => value[d] += weights[j] * x));
    return { weights, value };
  };
  const news = ({ positions, keys, values }: CoreRows, head: number): Token[] =>
    positions.map((position, row) => ({
      position,
      key: stored(rotated(keys[row][head], position)),
      value: stored(values[row][head]),
      score: UNSCORED,
      paid: new Map(),
    }));
  const mean = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0) / numbers.length;
  const best = (scores: readonly number[], count: number): number[] => {
    const { indices, gap } = topIndices(scores, count);
    leastGap = Math.min(leastGap, gap);
    return indices;
  };
  const positionsOf = () =>
    layers.map(({ tokens }) => tokens.map((own) => own.map(({ position }) => position)));

  const turn = ({ ids, maxTokens, feed = maxTokens - 1, forced, settings }: OracleTurn): OracleTurnResult => {
    const {
      recentRatio,
      sinks,
      distanceWeight,
      genDecay,
      genDecayStrategy,
      genCompress,
      genBlock,
      rowCap = Infinity,
      startLayer,
      perKvHead,
      caps,
      budget = caps !== undefined,
      ...rest
    } = { ...base, ...settings };
    const later = fed > 0;
    const plan = lengthsOf(
      { ...rest, recentRatio, sinks, genBlock, startLayer, caps, genDecay, genDecayStrategy, genCompress },
      layerCount,
      { tokens: ids.length, maxTokens, past: layers.map(({ tokens: [first] }) => first.length), later },
    );
    const window = 1 + Math.floor(recentRatio * ids.length);
    const dropped = { selected: 0, compressed: 0, evicted: 0 };
    const origin = fed + ids.length - 1;
    /** From 1 for the oldest of `count` rows to the full weight of the newest. */
    const rowWeight = (i: number, count: number) =>
      count === 1 ? 1 : 1 + (distanceWeight - 1) * i / (count - 1);

    const prefill: CoreOracle = (rows): CoreResult => {
      const { layer, positions, queries } = rows;
      const state = layers[layer];
      const all = state.tokens.map((own, head) => [...own, ...news(rows, head)]);
      const attended = queries.map((row, i) =>
        row.map((query, head) => attend(query, positions[i], all[Math.floor(head / group)]))
      );
      const rowCount = positions.length;
      const past = all[0].length - rowCount;
      const scored = Math.min(window, rowCap);
      // Each head's own mean over rows.
      const byHead = Array.from({ length: heads }, (_, head) =>
        positions.map((_, j) => {
          let sum = 0;
          for (let i = 0; i < scored; i++) {
            const { weights } = attended[rowCount - scored + i][head];
            sum += rowWeight(i, scored) * weights[past + j];
          }
          return sum / scored;
        }));
      const overHeads = (first: number, count: number) =>
        positions.map((_, j) => mean(byHead.slice(first, first + count).map((scores) => scores[j])));
      const shared = overHeads(0, heads);
      const slotScores = all.map((_, head) => perKvHead ? overHeads(head * group, group) : shared);
      const context = rowCount - window;
      const select = (scores: readonly number[], count: number): number[] => [
        ...best(
          scores.slice(0, context).map((value, j) => !later && positions[j] < sinks ? Infinity : value),
          count,
        ),
        ...positions.keys().drop(context),
      ];
      if (budget) {
        all.forEach((own, head) => own.slice(past).forEach((token, j) => token.score = slotScores[head][j]));
      }
      state.tokens = all.map((own, head) => [
        ...own.slice(0, past),
        ...select(slotScores[head], plan.slots[layer] - window).map((j) => own[past + j]),
      ]);
      const kept = select(shared, plan.rows[layer + 1] - window);
      dropped.selected += rowCount - kept.length;
      state.mark = state.tokens[0].length;
      state.frontier = origin;
      state.capacity = past + plan.capacities[layer];
      return { values: kept.map((row) => attended[row].map(({ value }) => value)), kept };
    };

    let number = 0;
    let recent = 0;
    const decode: CoreOracle = (rows): CoreResult => {
      const { layer, positions: [position], queries: [queries] } = rows;
      const state = layers[layer];
      state.tokens.forEach((own, head) => own.push(...news(rows, head)));
      const attended = queries.map((query, head) =>
        attend(query, position, state.tokens[Math.floor(head / group)])
      );
      state.tokens.forEach((own, kvHead) => {
        const heard = perKvHead ? attended.slice(kvHead * group, (kvHead + 1) * group) : attended;
        own.forEach((token, j) => token.paid.set(number, mean(heard.map(({ weights }) => weights[j]))));
      });
      const length = state.tokens[0].length;
      if (layer >= startLayer && length - recent - state.mark >= genBlock) {
        const end = length - 1 - recent;
        const first = end - genBlock;
        const keep = Math.max(
          1,
          Math.floor(
            genBlock * genCompress *
              shareOf(genDecayStrategy, genDecay, layer - startLayer, layerCount - startLayer),
          ),
        );
        state.tokens = state.tokens.map((own) => {
          const block = own.slice(first, end);
          for (const token of block) {
            let sum = 0;
            for (let i = 0; i <= recent; i++) {
              sum += rowWeight(i, 1 + recent) * (token.paid.get(number - recent + i) ?? 0);
            }
            token.score = sum / (1 + recent);
          }
          const kept = best(block.map(({ score }) => score), keep);
          dropped.compressed += genBlock - kept.length;
          return [...own.slice(0, first), ...kept.map((i) => block[i]), ...own.slice(end)];
        });
        state.mark = state.tokens[0].length - recent;
        state.frontier = position - recent;
      }
      // No row follows the last one.
      if (caps && state.tokens[0].length >= state.capacity && number < maxTokens - 1) {
        state.tokens = state.tokens.map((own) => {
          const may = own.flatMap(({ position: at }, i) =>
            at >= sinks && at < state.frontier && at <= position - 1 - recent ? [i] : []
          );
          if (may.length === 0) throw new Error(`Nothing may be evicted in layer ${layer} at ${position}`);
          // All but the worst stay; of equally bad ones the first goes, so that the order is turned round.
          const stay = best(may.toReversed().map((i) => own[i].score), may.length - 1);
          const out = may.toReversed().find((_, i) => !stay.includes(i));
          dropped.evicted++;
          return own.filter((_, i) => i !== out);
        });
        state.mark--;
      }
      return { values: [attended.map(({ value }) => value)] };
    };

    for (const { tokens } of layers) for (const own of tokens) for (const { paid } of own) paid.clear();
    const positions = ids.map((_, i) => fed + i);
    const prompt = llamaOracle(config, tensors, ids, { positions, core: prefill });
    fed += ids.length;
    const promptKept = positionsOf();
    const promptSlots = layers.map(({ tokens }) => tokens.map((own) => [...own]));
    const history = [];
    const sampled: number[] = [];
    const logprobs: number[] = [];
    const sample = (logits: Float64Array): void => {
      const { index, margin } = largestIndex(logits);
      if (forced?.[sampled.length] === undefined) leastMargin = Math.min(leastMargin, margin);
      const id = forced?.[sampled.length] ?? index;
      const most = logits[index];
      const all = logits.reduce((sum, value) => sum + Math.exp(value - most), 0);
      sampled.push(id);
      logprobs.push(logits[id] - most - Math.log(all));
    };
    sample(prompt.logits.slice(-config.vocab_size));
    for (number = 1; number <= feed; number++) {
      recent = Math.floor(recentRatio * (layers[0].tokens[0].length + 1));
      const row = llamaOracle(config, tensors, [sampled.at(-1)!], { positions: [fed++], core: decode });
      sample(row.logits);
      history.push(positionsOf());
    }
    return {
      ids: sampled,
      logprobs,
      hidden: prompt.hidden,
      hiddenPositions: prompt.positions,
      promptKept,
      promptSlots,
      kept: positionsOf(),
      slots: layers.map(({ tokens }) => tokens.map((own) => [...own])),
      history,
      dropped,
    };
  };
  return {
    turn,
    get leastGap() {
      return leastGap;
    },
    get leastMargin() {
      return leastMargin;
    },
  };
}
