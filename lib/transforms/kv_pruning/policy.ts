// What a policy of KV-cache pruning is: rules that are traced into a model's layers, and a schedule of lengths that the
// host works out for every turn.

import type { KeyValueStore } from "../../ops/mod.ts";
import type { AttentionShape, Trace, Turn, Value } from "../../layers/mod.ts";

/** Sizes of the model that a policy is applied to. */
export interface PolicyShape {
  /** Softmax layers. */
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads. */
  readonly kvHeads: number;
}

/** What one layer does in a turn. */
export interface LayerSchedule {
  /** Rows entering the layer. */
  readonly rows: number;
  /** Newest rows, never dropped. */
  readonly window: number;
  /** Newest rows whose queries score, at least 1. */
  readonly scored: number;
  /** First rows that are kept in any case. */
  readonly sinks: number;
  /** Rows before the window that go on to the next layer. */
  readonly keep: number;
  /** Rows before the window whose keys and values are stored. */
  readonly keepSlots: number;
  /**
   * Share of the attention on rows before the window that is kept, where a layer chooses by it: `rows`, `keep` and
   * `keepSlots` are then the most there may be.
   */
  readonly share?: number;
  /** Fewest tokens that such a choice leaves in the cache, those of earlier turns included. Default: none. */
  readonly minimum?: number;
  /** Most tokens that it leaves there with the next new one. Default: no limit. */
  readonly most?: number;
  /** Tokens kept of a block that is compressed in decode. */
  readonly genKeep?: number;
  /** Tokens of earlier turns in the cache. */
  readonly past: number;
  /** Most tokens in the cache at once until the turn's end, those of earlier turns included. */
  readonly capacity: number;
}

/** What all layers do in a turn. */
export interface Schedule {
  /** By layer. */
  readonly layers: readonly LayerSchedule[];
  /** Entry r: newest tokens protected when row r has run, row 0 being the last token fed; bit 31: a block is compressed. */
  readonly windows?: Uint32Array;
  /** Tokens of a block that is compressed in decode. */
  readonly genBlock?: number;
  /** Whether decode may have to evict: then every token fed needs a score. */
  readonly capped: boolean;
  /** Settings that were solved for a budget, for the record. */
  readonly solved?: Readonly<Record<string, number | string | boolean | readonly number[] | undefined>>;
}

/** What a scorer sees of a layer in prefill. */
export interface ScoreInput {
  /** Rotated queries of the layer's rows. */
  readonly queries: Value;
  /** Log-sum-exps of the scores [rows, heads], of the rows that score and of the window's. */
  readonly logSumExps: Value;
  /** Where keys and values stand. */
  readonly store: KeyValueStore;
  /** Factor of the scores. */
  readonly scale: number;
  /** Name of the table of selections, and of the number of columns that need scores. */
  readonly selection: string;
  /** Shape of the layer's attention. */
  readonly shape: AttentionShape;
}

/** Gives each row's key a score for every KV head: [kvHeads][rows]; the best are kept. */
export type Scorer = (trace: Trace, input: ScoreInput) => Value;

/** What a layer does with a prompt. */
export interface PrefillRule {
  /** Scores keys. None where sinks and window are all that is kept. */
  readonly score?: Scorer;
  /** Whether the scores are attention summed over all rows, to which decode may add. Default: no. */
  readonly sums?: boolean;
  /**
   * Share of a layer's budget that each KV head is sure of; the rest goes where the scores of all heads are highest. None:
   * every head keeps as many. Needs `perKvHead` and `cutsSlots`.
   */
  readonly spread?: number;
  /**
   * The most that the scores of a sequence are together, where a share of them decides how many rows are kept
   * (`LayerSchedule.share`): rows and slots are then the same, and are counted on the GPU. Needs a score, `dropsRows` and
   * `cutsSlots`, and all heads to keep the same.
   */
  readonly nucleus?: number;
  /** Whether rows that are not kept are dropped, so that later layers never compute them. */
  readonly dropsRows: boolean;
  /** Whether keys and values that are not kept are never stored in this layer's cache. */
  readonly cutsSlots: boolean;
  /** Whether each KV head keeps its own keys and values. */
  readonly perKvHead: boolean;
}

/** What a layer does with generated tokens. */
export interface BlockRule {
  /** Generated tokens are compressed once, block by block. */
  readonly type: "block";
  /** Weight of the newest row, where the oldest of the window has 1. */
  readonly distanceWeight: number;
  /** First tokens of a text, never evicted. */
  readonly sinks: number;
  /** Whether each KV head keeps its own tokens. */
  readonly perKvHead: boolean;
  /** Whether there may be a cap at which the lowest scored token goes. */
  readonly capped: boolean;
}

/** At its cap a layer evicts the token of the lowest score for each new one. */
export interface EvictRule {
  /** Single tokens go, at the cap. */
  readonly type: "evict";
  /** The score: attention summed over all steps, that of the last step, or the position. */
  readonly score: "sum" | "last" | "position";
  /** Newest tokens, never evicted. */
  readonly window: number;
  /** First tokens of a text, never evicted. */
  readonly sinks: number;
  /** Whether each KV head keeps its own tokens. */
  readonly perKvHead: boolean;
  /**
   * Whether the keys of the sinks are rotated anew in each step, so that they stand right before the oldest other token.
   * Default: tokens stay at their positions.
   */
  readonly relative?: boolean;
}

/** After each new token a layer selects anew what holds a share of that token's attention. */
export interface NucleusRule {
  /** All tokens before the newest ones are chosen from; how many stay follows from the scores. */
  readonly type: "nucleus";
  /** First tokens of a text, never evicted. */
  readonly sinks: number;
  /** All KV heads keep the same tokens. */
  readonly perKvHead: false;
}

/** What a layer does; nothing: it keeps everything. */
export interface LayerRule {
  /** With a prompt. */
  readonly prefill?: PrefillRule;
  /** With generated tokens. */
  readonly decode?: BlockRule | EvictRule | NucleusRule;
}

/** A policy of KV-cache pruning. */
export interface KvPolicy {
  /** Field-standard name, in kebab case. */
  readonly name: string;
  /** Its settings, printable. */
  readonly options: Readonly<Record<string, unknown>>;
  /** What each layer does, by layer. */
  rules(shape: PolicyShape): readonly LayerRule[];
  /**
   * Lengths of a turn, from the numbers of tokens alone.
   *
   * @param evicts what another policy's decode rules do at the cap, where they stand for this one's own
   * @throws {RangeError} when a budget cannot be met.
   */
  schedule(shape: PolicyShape, turn: Turn, evicts?: EvictRule): Schedule;
}
