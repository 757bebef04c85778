// What an architecture is: from config.json to layers and tensor names. One file an architecture, named as `model_type`.

import type { StorageType } from "../../wgsl/kernel.ts";
import type { Layer, Logits, ModelConfig, TokenIds, Weight } from "../layers/mod.ts";

/** A tensor of the checkpoint and where its rows go in a weight. */
export interface TensorSource {
  /** Names it may have; the first that the checkpoint holds is taken. */
  readonly names: readonly string[];
  /** Its shape in the checkpoint. */
  readonly shape: readonly number[];
  /** Its values when the checkpoint does not have it; only for weights in f32. Default: it must be there. */
  readonly fallback?: Float32Array<ArrayBuffer>;
  /**
   * What is stored in place of its values, as bits: for small tensors, which are read whole, of weights in f32. Default: the
   * values themselves.
   */
  readonly convert?: (values: Float32Array) => Uint32Array<ArrayBuffer>;
}

/** A weight on the GPU and the tensors stacked in it, by rows. */
export interface WeightSource {
  /** The weight. */
  readonly weight: Weight;
  /** Its tensors in order. */
  readonly tensors: readonly TensorSource[];
}

/** An architecture applied to a configuration. */
export interface Architecture {
  /** Sizes and ids. */
  readonly config: ModelConfig;
  /** Weights and the tensors they come from. */
  readonly sources: readonly WeightSource[];
  /** Tensors that checkpoints carry without need, such as rotary buffers. */
  readonly harmless: RegExp;
  /** The layers. */
  readonly pipeline: Layer<TokenIds, Logits>;
}

/** Makes an architecture from `config.json`, for weights of a storage type. */
export type ArchitectureFactory = (config: ConfigReader, dtype: StorageType) => Architecture;

/** Reads fields of `config.json` with errors in words. */
export interface ConfigReader {
  /** Path, for errors. */
  readonly path: string;
  /** The object. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** A whole number of at least `least` (default 1). */
  integer(name: string, fallback?: number, least?: number): number;
  /** A positive number. */
  positive(name: string, fallback?: number): number;
  /** True or false. */
  flag(name: string, fallback: boolean): boolean;
  /** One of the given words. */
  word<T extends string>(name: string, allowed: readonly T[], fallback?: T): T;
  /** One id or a list of ids; none when absent or null. */
  ids(name: string): number[];
  /** Throws when a field is there and not one of the values under which nothing is to be computed. */
  refuse(name: string, harmless: readonly unknown[], why: string): void;
  /** An object or undefined. */
  object(name: string): ConfigReader | undefined;
}

/** Sizes and ids that every model has: the sizes as an architecture read them, the ids from `config.json`. */
export function modelConfig(
  modelType: string,
  sizes: Pick<ModelConfig, "vocabularySize" | "hiddenSize" | "contextLength">,
  reader: ConfigReader,
): ModelConfig {
  const { vocabularySize, hiddenSize, contextLength } = sizes;
  const [bosId] = reader.ids("bos_token_id");
  return {
    modelType,
    vocabularySize,
    hiddenSize,
    contextLength,
    eosIds: reader.ids("eos_token_id"),
    ...(bosId === undefined ? {} : { bosId }),
  };
}

/** Reads a parsed `config.json`. */
export function configReader(path: string, fields: Readonly<Record<string, unknown>>): ConfigReader {
  const fail = (name: string, expected: string): never => {
    throw new TypeError(
      `${path}: ${name} must be ${expected}: current value is ${JSON.stringify(fields[name])}`,
    );
  };
  const given = (name: string) => fields[name] !== undefined && fields[name] !== null;
  return {
    path,
    fields,
    integer(name, fallback, least = 1): number {
      if (!given(name) && fallback !== undefined) return fallback;
      const value = fields[name];
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least || value > 2 ** 31) {
        return fail(name, `a whole number from ${least} to 2147483648`);
      }
      return value;
    },
    positive(name, fallback): number {
      if (!given(name) && fallback !== undefined) return fallback;
      const value = fields[name];
      return typeof value === "number" && value > 0 && value < Infinity
        ? value
        : fail(name, "a positive number");
    },
    flag(name, fallback): boolean {
      if (!given(name)) return fallback;
      const value = fields[name];
      return typeof value === "boolean" ? value : fail(name, "true or false");
    },
    word(name, allowed, fallback) {
      if (!given(name) && fallback !== undefined) return fallback;
      const found = allowed.find((word) => word === fields[name]);
      return found ?? fail(name, `one of ${allowed.join(", ")}, the others are not computed yet`);
    },
    ids(name): number[] {
      if (!given(name)) return [];
      const list = Array.isArray(fields[name]) ? fields[name] as unknown[] : [fields[name]];
      if (!list.every((id) => Number.isSafeInteger(id) && (id as number) >= 0)) {
        return fail(name, "an id or a list of ids");
      }
      return list as number[];
    },
    refuse(name, harmless, why): void {
      if (given(name) && !harmless.includes(fields[name])) {
        throw new TypeError(`${path}: ${name} is ${JSON.stringify(fields[name])}, but ${why}`);
      }
    },
    object(name): ConfigReader | undefined {
      if (!given(name)) return undefined;
      const value = fields[name];
      if (typeof value !== "object" || Array.isArray(value)) return fail(name, "an object");
      return configReader(`${path}: ${name}`, value as Record<string, unknown>);
    },
  };
}
