// A wrong pipeline fails to compile: every line under a directive must be a type error, or the type check fails.

import { assertEquals } from "@std/assert";
import {
  embedding,
  type Hidden,
  hidden,
  type Layer,
  leaf,
  lmHead,
  type Logits,
  mapLayers,
  pipe,
  residual,
  rmsNorm,
  type TokenIds,
  type Weight,
} from "../../lib/layers/mod.ts";

const table: Weight = { name: "table", rows: 10, columns: 4, dtype: "f32" };
const embed: Layer<TokenIds, Hidden> = embedding(table);
const norm: Layer<Hidden, Hidden> = rmsNorm(undefined, 1e-5);
const head: Layer<Hidden, Logits> = lmHead(table);
const blocks: Layer<Hidden, Hidden>[] = [residual(norm), residual(pipe(norm, norm))];

Deno.test("pipe() has the type of its first input and last output", () => {
  const whole: Layer<TokenIds, Logits> = pipe(embed, ...blocks, norm, head);
  const body: Layer<Hidden, Hidden> = pipe(norm, ...blocks, norm);
  const short: Layer<TokenIds, Logits> = pipe(embed, head);
  const one: Layer<Hidden, Logits> = pipe(head);
  const mapped: Layer<TokenIds, Logits> = mapLayers(whole, (layer) => layer);
  assertEquals([whole, body, short, one, mapped].map(({ layers }) => layers.length), [5, 4, 2, 0, 5]);
});

Deno.test("pipe() and residual() of layers that do not fit do not compile", () => {
  const wrong = () => [
    // @ts-expect-error: an embedding takes tokens, not hidden states
    pipe(norm, embed),
    // @ts-expect-error: nothing takes logits
    pipe(head, norm),
    // @ts-expect-error: in the middle as little
    pipe(embed, head, norm),
    // @ts-expect-error: nor among blocks
    pipe(embed, ...blocks, head, head),
    // @ts-expect-error: a pipeline has layers
    pipe(),
    // @ts-expect-error: what is added to hidden states must be hidden states
    residual(head),
    // @ts-expect-error: and must take them
    residual(embed),
    // @ts-expect-error: a block is no model
    pipe(norm, head) satisfies Layer<TokenIds, Logits>,
    // @ts-expect-error: a model without a head gives no logits
    pipe(embed, norm) satisfies Layer<TokenIds, Logits>,
    // @ts-expect-error: a layer gives what it says
    leaf<Hidden, Logits, Record<never, never>>("wrong", {}, (_, x) => x),
    // @ts-expect-error: a value is not yet hidden states
    leaf<Hidden, Hidden, Record<never, never>>("wrong", {}, (_, { value }) => value),
    leaf<Hidden, Hidden, Record<never, never>>("right", {}, (_, { value }) => hidden(value)),
  ];
  assertEquals(typeof wrong, "function");
});
