// Writes a run's sampling settings to the GPU: one row a sequence, and the tables that penalties and biases need.

import type { Engine } from "./engine.ts";
import type { ResolvedOptions } from "./options.ts";
import { packSampling, packStates, type SequenceStart } from "./tables.ts";

/**
 * Writes states and settings of all sequences.
 *
 * @param contexts Tokens of each sequence that the repetition penalty looks at.
 */
export function writeSampling(
  engine: Engine,
  options: ResolvedOptions,
  starts: readonly SequenceStart[],
  contexts: readonly (readonly number[])[],
): void {
  engine.write("states", packStates(starts));
  const row = packSampling(options);
  starts.forEach((_, i) => engine.write("settings", row, i * row.byteLength));
  engine.write("stopIds", new Uint32Array(options.stopIds));
  if (!options.edits) return;
  const vocabulary = engine.spec.model.config.vocabularySize;
  const bias = new Float32Array(vocabulary);
  for (const [id, value] of options.logitBias) bias[id] = value;
  contexts.forEach((ids, sequence) => {
    const counts = new Uint32Array(vocabulary);
    // Bit 31: the token occurs in the context.
    for (const id of ids) counts[id] = 0x80000000;
    engine.write("counts", counts, sequence * vocabulary * 4);
    engine.write("bias", bias, sequence * vocabulary * 4);
  });
}
