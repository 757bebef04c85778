// Fusions: each rewrites a trace's operations so that a step takes fewer kernel calls.

import type { Operation, Rewrite, Trace, Value, WeightView } from "../graph/mod.ts";
import { isColumnRange, weightParts } from "../graph/mod.ts";
import { addOp } from "./add.ts";
import { mergeEvictions } from "./evict_tokens.ts";
import { type GluAttributes, gluOp } from "./glu.ts";
import { type LinearAttributes, linearOp } from "./linear.ts";
import { type RmsNormAttributes, rmsNormOp } from "./rms_norm.ts";

type Linear = Operation<LinearAttributes>;

function isLinear(operation: Operation | undefined): operation is Linear {
  return operation?.definition === linearOp;
}

function producers(operations: readonly Operation[]): Map<Value, Operation> {
  return new Map(operations.flatMap((operation) => operation.outputs.map((value) => [value, operation])));
}

function consumers(operations: readonly Operation[]): Map<Value, Operation[]> {
  const map = new Map<Value, Operation[]>();
  for (const operation of operations) {
    for (const value of operation.inputs) map.set(value, [...(map.get(value) ?? []), operation]);
  }
  return map;
}

/** Whether two views stand in the same buffer, whatever the splitting. */
function samePart(a: WeightView, b: WeightView, trace: Trace): boolean {
  if (a.weight !== b.weight) return false;
  return weightParts(a.weight, trace.target.bindingBytes).some(({ first, rows }) =>
    [a, b].every((view) => view.first >= first && view.first + view.rows <= first + rows)
  );
}

/** Whether two linears are both without a bias, or take theirs from one weight. */
function sameBias(a: Linear, b: Linear): boolean {
  return a.attributes.bias?.weight === b.attributes.bias?.weight;
}

/** Few rows: gate, up and the product of a gated linear unit become one matrix-vector kernel. */
export const fuseGlu: Rewrite = (operations, trace) => {
  const made = producers(operations);
  const used = consumers(operations);
  const dropped = new Set<Operation>();
  const replaced = new Map<Operation, Operation>();
  for (const operation of operations) {
    if (operation.definition !== gluOp || !operation.outputs[0].rows.thin) continue;
    const [gate, up] = operation.inputs.map((value) => made.get(value));
    if (!isLinear(gate) || !isLinear(up) || gate.inputs[0] !== up.inputs[0] || gate === up) continue;
    if (operation.inputs.some((value) => used.get(value)!.length > 1)) continue;
    if (!samePart(gate.attributes.view, up.attributes.view, trace) || !sameBias(gate, up)) continue;
    dropped.add(gate).add(up);
    const { activation } = operation.attributes as GluAttributes;
    replaced.set(operation, {
      ...gate,
      outputs: operation.outputs,
      attributes: { ...gate.attributes, up: { ...up.attributes, activation } },
    } as Linear as Operation);
  }
  return operations.filter((operation) => !dropped.has(operation)).map((operation) =>
    replaced.get(operation) ?? operation
  );
};

/** Whether `b` takes the rows of a weight, and the numbers of a bias, that follow on those of `a`. */
function follows({ attributes: a }: Linear, { attributes: b }: Linear): boolean {
  const adjacent = (one: WeightView, next: WeightView) =>
    one.weight === next.weight && one.first + one.rows === next.first;
  return adjacent(a.view, b.view) && (a.bias && b.bias ? adjacent(a.bias, b.bias) : a.bias === b.bias);
}

/**
 * Linears of one input over adjacent ranges of one weight become one linear, where the first of them stands; their outputs
 * are its columns, where all that read them take such views.
 */
export const packLinears: Rewrite = (operations, trace) => {
  const used = consumers(operations);
  const mayBeView = (value: Value) =>
    (used.get(value) ?? []).every((operation) => operation.definition.takesViews);
  const result: Operation[] = [];
  /** Places of the linears so far, by their input. */
  const places = new Map<Value, number[]>();
  for (const operation of operations) {
    if (!isLinear(operation) || operation.attributes.up || !mayBeView(operation.outputs[0])) {
      result.push(operation);
      continue;
    }
    const [input] = operation.inputs;
    const known = places.get(input) ?? [];
    const place = known.find((at) =>
      result[at].segment === operation.segment && follows(result[at] as Linear, operation)
    );
    if (place === undefined) {
      places.set(input, [...known, result.length]);
      result.push(operation);
      continue;
    }
    const first = result[place] as Linear;
    const { view, bias } = first.attributes;
    const columns = view.rows + operation.attributes.view.rows;
    const packed = trace.value(view.weight.name, operation.outputs[0].rows, columns);
    // Views of an earlier pack follow to the wider one.
    first.outputs[0].view = { of: packed, offset: 0 };
    operation.outputs[0].view = { of: packed, offset: view.rows };
    result[place] = {
      ...first,
      outputs: [packed],
      attributes: { view: { ...view, rows: columns }, ...(bias ? { bias: { ...bias, rows: columns } } : {}) },
    } as Linear as Operation;
  }
  return result;
};

/** Few rows: a norm read by linears alone is computed by them. */
export const fuseNorm: Rewrite = (operations) => {
  const used = consumers(operations);
  const norms = new Map<Value, Operation<RmsNormAttributes>>();
  for (const operation of operations) {
    if (operation.definition !== rmsNormOp || !operation.outputs[0].rows.thin) continue;
    const readers = used.get(operation.outputs[0]) ?? [];
    if (readers.length === 1 && isLinear(readers[0])) {
      norms.set(operation.outputs[0], operation as Operation<RmsNormAttributes>);
    }
  }
  return operations.filter((operation) => !norms.has(operation.outputs[0])).map((operation) => {
    const norm = norms.get(operation.inputs[0]);
    if (!norm || !isLinear(operation)) return operation;
    return {
      ...operation,
      inputs: [norm.inputs[0], ...operation.inputs.slice(1)],
      attributes: { ...operation.attributes, norm: norm.attributes },
    } as Operation;
  });
};

/** A linear whose output is only added to something adds it itself. */
export const fuseResidual: Rewrite = (operations) => {
  const made = producers(operations);
  const used = consumers(operations);
  const dropped = new Set<Operation>();
  const replaced = new Map<Operation, Operation>();
  for (const operation of operations) {
    if (operation.definition !== addOp) continue;
    for (const [i, value] of operation.inputs.entries()) {
      const source = made.get(value);
      const other = operation.inputs[1 - i];
      if (
        !isLinear(source) || source.inputs.length > 1 || source.attributes.up || used.get(value)!.length > 1
      ) {
        continue;
      }
      if (isColumnRange(value) || isColumnRange(other)) continue;
      dropped.add(source);
      replaced.set(operation, {
        ...source,
        inputs: [source.inputs[0], other],
        outputs: operation.outputs,
        attributes: { ...source.attributes, residual: true },
      } as Linear as Operation);
      break;
    }
  }
  return operations.filter((operation) => !dropped.has(operation)).map((operation) =>
    replaced.get(operation) ?? operation
  );
};

/** All fusions, in the order in which they find the most. */
export const fusions: readonly Rewrite[] = [fuseGlu, packLinears, fuseNorm, fuseResidual, mergeEvictions];
