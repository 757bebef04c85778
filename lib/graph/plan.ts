// A plan: the kernel calls of one phase over planned buffers, as data. Making and printing one needs no GPU.

import type { Kernel } from "../../wgsl/kernel.ts";
import { formatBytes } from "../gpu/mod.ts";
import type { Dispatch } from "./dispatch.ts";
import { type MemoryPlan, planMemory } from "./memory_plan.ts";
import type { CacheRequest, Emit, OpDefinition, Operation, Target, Trace } from "./trace.ts";
import type { StagingArena, Step, StepTable } from "./step.ts";
import { placementOf, type Rows, type Value } from "./value.ts";

/** What a trace becomes. */
export interface Plan {
  /** What it was made for. */
  readonly target: Target;
  /** Kernel calls in order. */
  readonly dispatches: readonly Dispatch[];
  /** Buffers of its values. */
  readonly memory: MemoryPlan;
  /** What the model keeps between steps. */
  readonly caches: readonly CacheRequest[];
  /** Host tables by resource name. */
  readonly constants: ReadonlyMap<string, () => Float32Array>;
  /** Tables that the host writes before each prefill step. */
  readonly stepTables: ReadonlyMap<string, StepTable>;
  /** Sizes that follow from a prefill step. */
  readonly stepCounts: ReadonlyMap<string, (step: Step) => number>;
  /** Rows of each sequence among those that the plan picks itself, by name. */
  readonly rowCounts: ReadonlyMap<string, (step: Step) => number[]>;
  /** Slices of rows: their counts follow from those of the rows they are slices of. */
  readonly rowSlices: ReadonlyMap<string, Rows>;
  /** Staging arenas by name. */
  readonly staging: ReadonlyMap<string, StagingArena>;
  /** Values that stay readable after a replay, by name. */
  readonly results: Readonly<Record<string, Value>>;
}

/** Rewrites operations before they are lowered: the fusions. */
export type Rewrite = (operations: readonly Operation[], trace: Trace) => readonly Operation[];

/** Kernels by source: ops build them anew for every call, and most calls of a plan are the same few. */
const kernels = new Map<string, Kernel>();

function interned(kernel: Kernel): Kernel {
  const key = `${kernel.name}\n${kernel.code}`;
  const known = kernels.get(key);
  if (known) return known;
  kernels.set(key, kernel);
  return kernel;
}

/** Stands last and reads the results, so that rewrites leave them. */
const resultOp: OpDefinition<Record<never, never>> = { kind: "result", lower: () => {} };

/**
 * Lowers a trace: rewrites, emits kernel calls, plans memory.
 *
 * @throws {RangeError} when a value is over the binding limit.
 */
export function lower(
  trace: Trace,
  rewrites: readonly Rewrite[],
  results: Readonly<Record<string, Value>>,
): Plan {
  const last = { inputs: Object.values(results), outputs: [], attributes: {}, segment: trace.segment };
  let operations: readonly Operation[] = [
    ...trace.operations,
    { definition: resultOp as OpDefinition<unknown>, ...last },
  ];
  for (const rewrite of rewrites) operations = rewrite(operations, trace);
  const dispatches: Dispatch[] = [];
  for (const operation of operations) {
    const emit: Emit = {
      target: trace.target,
      trace,
      dispatch: (kernel, operands, parameters) => {
        if (operands.length !== kernel.bindings.length) {
          throw new TypeError(
            `Kernel ${kernel.name} has ${kernel.bindings.length} bindings, ${operation.definition.kind} binds ${operands.length}`,
          );
        }
        dispatches.push({
          kernel: interned(kernel),
          operands,
          parameters,
          operation: operation.definition.kind,
          segment: operation.segment,
        });
      },
    };
    operation.definition.lower(operation, emit);
  }
  checkSizes(dispatches, trace.target);
  return {
    target: trace.target,
    dispatches,
    memory: planMemory(dispatches, Object.values(results)),
    caches: trace.caches,
    constants: trace.constants,
    stepTables: trace.stepTables,
    stepCounts: trace.stepCounts,
    rowCounts: trace.rowCounts,
    staging: trace.staging,
    rowSlices: trace.rowSlices,
    results,
  };
}

/** Values are not split, so each must fit a binding. */
function checkSizes(dispatches: readonly Dispatch[], { bindingBytes }: Target): void {
  for (const operand of dispatches.flatMap((dispatch) => dispatch.operands)) {
    if (operand.type !== "value") continue;
    const { root } = placementOf(operand.value);
    const bytes = root.rows.capacity * root.width * 4;
    if (bytes > bindingBytes) {
      throw new RangeError(
        `${root.name} takes ${
          formatBytes(bytes)
        } for ${root.rows.capacity} rows of ${root.width} numbers, over this ` +
          `device's binding limit of ${
            formatBytes(bindingBytes)
          }: use fewer sequences at once or a shorter context`,
      );
    }
  }
}

/** Kernel names with how often a plan calls them, most frequent first. */
export function kernelCounts(plan: Plan): { name: string; count: number }[] {
  const counts = new Map<string, number>();
  for (const { kernel } of plan.dispatches) counts.set(kernel.name, (counts.get(kernel.name) ?? 0) + 1);
  return [...counts].map(([name, count]) => ({ name, count }))
    .sort((a, b) => b.count - a.count || a.name.localeCompare(b.name));
}

/** A plan as text: one line a kernel call with its operands' shapes, then the buffers. */
export function printPlan(plan: Plan): string {
  const lines = plan.dispatches.map((dispatch, i) => {
    const operands = dispatch.operands.map((operand) => {
      if (operand.type === "resource") return operand.name;
      if (operand.type === "weight") {
        const { name, rows, columns, dtype } = operand.weight;
        return `${name}${operand.part ? `.${operand.part}` : ""} [${rows}, ${columns}] ${dtype}`;
      }
      const { root } = placementOf(operand.value);
      return `${root.name} [${root.rows.name}, ${root.width}] #${plan.memory.slotOf.get(root.id)}`;
    });
    return `${String(i).padStart(4)} ${dispatch.segment.padEnd(6)} ${dispatch.kernel.name}(${
      operands.join(", ")
    })`;
  });
  const slots = plan.memory.slots.map((bytes, i) => `  #${i}: ${bytes} bytes`);
  return [
    `${plan.target.phase} plan for up to ${plan.target.rows.capacity} rows: ${plan.dispatches.length} kernel calls`,
    ...lines,
    `buffers, ${plan.memory.bytes} bytes:`,
    ...slots,
  ].join("\n");
}
