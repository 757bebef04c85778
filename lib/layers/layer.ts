// Layers: plain data with a pure function from a value to a value. Types make a wrong pipeline fail to compile.

import type { Trace, Value } from "../graph/mod.ts";

/** The step's token ids: what an embedding takes. */
export interface TokenIds {
  /** Tells the types apart. */
  readonly type: "tokenIds";
}

/** Hidden states: one row a token. */
export interface Hidden {
  /** Tells the types apart. */
  readonly type: "hidden";
  /** The rows. */
  readonly value: Value;
}

/** Logits over the vocabulary, for the rows whose logits are wanted. */
export interface Logits {
  /** Tells the types apart. */
  readonly type: "logits";
  /** The rows. */
  readonly value: Value;
}

/** What flows through a pipeline. */
export type Flow = TokenIds | Hidden | Logits;

/**
 * A layer: its kind and configuration as plain data, the layers inside it, and how it is traced. `rebuild` makes the same
 * layer around other inner layers; that is what {@linkcode mapLayers} needs.
 */
export interface Layer<In extends Flow = Flow, Out extends Flow = Flow> {
  /** Field-standard name. */
  readonly kind: string;
  /** Configuration and weights, printable. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Layers inside, in order. */
  readonly layers: readonly AnyLayer[];
  /** Traces the layer. */
  apply(trace: Trace, input: In): Out;
  /** The same layer around other inner layers. */
  rebuild(layers: readonly AnyLayer[]): Layer<In, Out>;
}

/** A layer of any type. */
// deno-lint-ignore no-explicit-any
export type AnyLayer = Layer<any, any>;

/** Wraps hidden states. */
export function hidden(value: Value): Hidden {
  return { type: "hidden", value };
}

/** Makes a layer without inner layers. */
export function leaf<In extends Flow, Out extends Flow, Config extends object>(
  kind: string,
  config: Config,
  apply: (trace: Trace, input: In) => Out,
): Layer<In, Out> & { readonly config: Config } {
  const layer: Layer<In, Out> & { readonly config: Config } = {
    kind,
    config: config as Config & Record<string, unknown>,
    layers: [],
    apply,
    rebuild: () => layer,
  };
  return layer;
}

/** Replaces layers bottom up: `replace` gets each layer with its inner layers already replaced. */
export function mapLayers<In extends Flow, Out extends Flow>(
  layer: Layer<In, Out>,
  replace: (layer: AnyLayer) => AnyLayer,
): Layer<In, Out> {
  const inner = layer.layers.map((child) => mapLayers(child, replace));
  const same = inner.every((child, i) => child === layer.layers[i]);
  return replace(same ? layer : layer.rebuild(inner));
}

/** All layers in the order in which they are traced, outer before inner. */
export function* walkLayers(layer: AnyLayer): Generator<AnyLayer> {
  yield layer;
  for (const child of layer.layers) yield* walkLayers(child);
}

/** A pipeline as indented text. */
export function printLayers(layer: AnyLayer, indent = ""): string {
  const config = Object.entries(layer.config).flatMap(([name, value]) => {
    if (typeof value === "number" || typeof value === "string" || typeof value === "boolean") {
      return [`${name}: ${value}`];
    }
    if (value && typeof value === "object" && "rows" in value) {
      const { rows, columns, weight } = value as {
        rows: number;
        columns?: number;
        weight?: { columns: number };
      };
      return [`${name}: [${rows}, ${columns ?? weight?.columns}]`];
    }
    if (value && typeof value === "object" && "kind" in value) return [`${name}: ${value.kind}`];
    return [];
  });
  const line = `${indent}${layer.kind}${config.length ? `(${config.join(", ")})` : ""}`;
  return [line, ...layer.layers.map((child) => printLayers(child, indent + "  "))].join("\n");
}
