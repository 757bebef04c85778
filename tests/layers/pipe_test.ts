import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import type { OpDefinition, Trace, Weight } from "../../lib/graph/mod.ts";
import {
  type AnyLayer,
  attention,
  coresOf,
  embedding,
  type Hidden,
  hidden,
  isAttention,
  type Layer,
  leaf,
  linear,
  lmHead,
  mapCores,
  mapLayers,
  type ModelConfig,
  pipe,
  type PipelineModel,
  printLayers,
  residual,
  rmsNorm,
  softmaxCore,
  swiGlu,
  walkLayers,
  whole,
} from "../../lib/layers/mod.ts";
import { THIN_ROWS, traceFor } from "../ops/trace_target.ts";

const noop: OpDefinition<Record<never, never>> = { kind: "noop", lower: () => {} };

/** A layer that only leaves its name in the trace. */
function named(kind: string): Layer<Hidden, Hidden> {
  return leaf<Hidden, Hidden, Record<never, never>>(kind, {}, (trace, { value }) => {
    const y = trace.value(`${kind} of ${value.name}`, value.rows, value.width);
    trace.append(noop, [value], [y], {});
    return hidden(y);
  });
}

function start(): { trace: Trace; x: Hidden } {
  const trace = traceFor();
  return { trace, x: hidden(trace.value("x", trace.target.rows, 4)) };
}

Deno.test("pipe() runs layers one after the other, and is one layer by itself", () => {
  const { trace, x } = start();
  const a = named("a");
  const layer = pipe(a, named("b"), pipe(named("c"), named("d")));
  assertEquals(layer.apply(trace, x).value.name, "d of c of b of a of x");
  assertStrictEquals(pipe(a), a);
});

Deno.test("residual() adds what is inside to its input", () => {
  const { trace, x } = start();
  const { value } = residual(named("inner")).apply(trace, x);
  const [inner, sum] = trace.operations;
  assertEquals(inner.definition.kind, "noop");
  assertEquals(sum.definition.kind, "add");
  assertEquals([sum.inputs[0], sum.inputs[1], sum.outputs[0]], [x.value, inner.outputs[0], value]);
});

Deno.test("walkLayers() gives outer layers before inner ones, in order", () => {
  const layer = pipe(named("a"), residual(pipe(named("b"), named("c"))), named("d"));
  assertEquals([...walkLayers(layer)].map(({ kind }) => kind), [
    "pipe",
    "a",
    "residual",
    "pipe",
    "b",
    "c",
    "d",
  ]);
});

Deno.test("mapLayers() replaces inner layers first and keeps what is not touched", () => {
  const untouched = residual(named("c"));
  const layer = pipe(named("a"), residual(named("b")), untouched);
  assertStrictEquals(mapLayers(layer, (inner) => inner), layer);
  const seen: string[] = [];
  const mapped = mapLayers(layer, (inner) => {
    seen.push(inner.layers.length ? `${inner.kind}(${inner.layers.map(({ kind }) => kind)})` : inner.kind);
    return inner.kind === "b" ? named("z") : inner;
  });
  assertEquals(seen, ["a", "b", "residual(z)", "c", "residual(c)", "pipe(a,residual,residual)"]);
  assertStrictEquals(mapped.layers[2], untouched);
  assert(mapped.layers[1] !== layer.layers[1]);
  assertEquals(printLayers(layer), "pipe\n  a\n  residual\n    b\n  residual\n    c");
  assertEquals(printLayers(mapped), "pipe\n  a\n  residual\n    z\n  residual\n    c");
  const { trace, x } = start();
  mapped.apply(trace, x);
  assertEquals(trace.operations.map(({ outputs }) => outputs[0].name), [
    "a of x",
    "z of a of x",
    "add",
    "c of add",
    "add",
  ]);
});

const weight = (name: string, rows: number, columns = 8): Weight => ({ name, rows, columns, dtype: "f32" });
const table = weight("table", 50);

/** A Llama of some blocks, written with the public layers. */
function model(blocks: number): PipelineModel {
  const qkv = weight("qkv", 32);
  const gateUp = weight("gate_up", 24);
  const range = (of: Weight, first: number, rows: number) => ({ weight: of, first, rows });
  const block = () =>
    pipe(
      residual(pipe(
        rmsNorm(weight("norm 1", 1), 1e-5),
        attention({
          heads: 2,
          kvHeads: 1,
          headSize: 8,
          weights: {
            query: range(qkv, 0, 16),
            key: range(qkv, 16, 8),
            value: range(qkv, 24, 8),
            output: whole(weight("output", 8, 16)),
          },
          core: softmaxCore(),
        }),
      )),
      residual(pipe(
        rmsNorm(undefined, 1e-5),
        swiGlu({ gate: range(gateUp, 0, 12), up: range(gateUp, 12, 12), down: whole(weight("down", 8, 12)) }),
      )),
    );
  const config: ModelConfig = {
    modelType: "test",
    vocabularySize: 50,
    hiddenSize: 8,
    contextLength: 64,
    eosIds: [],
  };
  return {
    config,
    pipeline: pipe(
      embedding(table, 2),
      ...Array.from({ length: blocks }, block),
      linear(whole(weight("square", 8))),
      lmHead(table),
    ),
    dtype: "f32",
    weights: [],
  };
}

Deno.test("printLayers() shows kinds, numbers, weights with their shapes and cores", () => {
  assertEquals(
    printLayers(model(1).pipeline),
    [
      "pipe",
      "  embedding(table: [50, 8], scale: 2)",
      "  pipe",
      "    residual",
      "      pipe",
      "        rmsNorm(weight: [1, 8], epsilon: 0.00001)",
      "        attention(heads: 2, kvHeads: 1, headSize: 8, core: softmax)",
      "    residual",
      "      pipe",
      "        rmsNorm(epsilon: 0.00001)",
      "        swiGlu(gate: [12, 8], up: [12, 8], down: [8, 12])",
      "  linear(view: [8, 8])",
      "  lmHead(table: [50, 8])",
    ].join("\n"),
  );
});

Deno.test("lmHead() marks the last hidden states and begins the segment head", () => {
  const trace = traceFor(THIN_ROWS);
  const { type, value } = model(1).pipeline.apply(trace, { type: "tokenIds" });
  assertEquals([type, value.width, value.rows], ["logits", 50, THIN_ROWS]);
  assertEquals(trace.marks.get("hidden")!.width, 8);
  assertEquals(
    trace.operations.map(({ segment }) => segment).lastIndexOf("body"),
    trace.operations.length - 2,
  );
});

Deno.test("coresOf() gives the cores of attention layers in order", () => {
  const kinds = (layers: PipelineModel) => coresOf(layers).map(({ kind }) => kind);
  assertEquals(kinds(model(3)), ["softmax", "softmax", "softmax"]);
  const other = { ...softmaxCore(), kind: "other" };
  assertEquals(kinds(mapCores(model(3), ({ core }, i) => i === 1 ? other : core)), [
    "softmax",
    "other",
    "softmax",
  ]);
});

Deno.test("mapCores() gives each layer's configuration, index and count, and keeps what it does not name", () => {
  const original = model(3);
  const asked: unknown[] = [];
  const same = mapCores(original, ({ core, heads }, index, count) => {
    asked.push([heads, index, count]);
    return core;
  });
  assertEquals(asked, [[2, 0, 3], [2, 1, 3], [2, 2, 3]]);
  assertStrictEquals(same.pipeline, original.pipeline);
  const changed = mapCores(original, ({ core }, index) => index === 2 ? { ...core, kind: "other" } : core);
  assertStrictEquals(changed.config, original.config);
  assertStrictEquals(changed.pipeline.layers[1], original.pipeline.layers[1]);
  const attentionOf = (layer: AnyLayer) => [...walkLayers(layer)].filter(isAttention);
  const [before, after] = [original, changed].map(({ pipeline }) => attentionOf(pipeline)[2].config);
  assertStrictEquals(after.weights, before.weights);
  assertEquals([before.core.kind, after.core.kind], ["softmax", "other"]);
});

Deno.test("leaf() layers rebuild to themselves", () => {
  const layer = named("a");
  assertStrictEquals(layer.rebuild([]), layer);
  assertEquals([layer.layers, layer.config], [[], {}]);
});
