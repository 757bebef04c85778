// Warnings on stderr: of a model when it is opened, of a run when it has ended.

import type { GenerateRecord, Model } from "../../mod.ts";
import type { Values } from "./flags.ts";
import type { Io } from "./io.ts";

function warn(io: Io, values: Values, warnings: readonly string[]): void {
  if (values.quiet) return;
  for (const warning of new Set(warnings)) io.stderr.write(`warning: ${warning}\n`);
}

/** What is known before anything runs: of the model's files, and of linear attention that was put into it. */
function modelWarnings({ warnings, linearized = [] }: Model): string[] {
  return [...warnings, ...linearized.map(({ warning }) => warning)];
}

/** Tells what is worth knowing of a model, with its linear attention. */
export function warnOfModel(io: Io, values: Values, model: Model): void {
  warn(io, values, modelWarnings(model));
}

/** Tells what is worth knowing of a run beyond what was told of its model. */
export function warnOfRun(io: Io, values: Values, model: Model, { warnings = [] }: GenerateRecord): void {
  const known = modelWarnings(model);
  warn(io, values, warnings.filter((warning) => !known.includes(warning)));
}
