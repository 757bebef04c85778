// The decode loop that stays on the GPU: several steps a submit, the next submit under way before the last is read.

import type { Recorder, Staging } from "../gpu/mod.ts";
import type { Checkpoint, Engine } from "./engine.ts";
import { MAX_RUN_AHEAD } from "./options.ts";
import { type Sampled, unpackSamples, unpackStates } from "./tables.ts";

/** Entries of a sequence in the ring of samples: more than can be under way. */
export const RING = 4 * MAX_RUN_AHEAD;

/** What the loop tells and asks. */
export interface DecodeHooks {
  /** Takes the next sample of a sequence; false ends the sequence with it. */
  take(sequence: number, sample: Sampled): boolean;
  /** All samples of a read-back were taken. */
  flush(): void;
  /** Whether to end now. */
  aborted(): boolean;
  /** Whether someone waits for pieces: then submits are short. */
  watched(): boolean;
}

/** What a loop runs. */
export interface DecodeRun {
  /** By index: length of the cache after prefill, and most tokens. */
  readonly sequences: readonly { readonly length: number; readonly maxTokens: number }[];
  /** Decode steps of a submit; undefined adapts. */
  readonly runAhead: number | undefined;
  /** One sequence whose cache goes on living: steps that ran past its end are taken back. */
  readonly rewindable: boolean;
}

/** How a loop went. */
export interface DecodeResult {
  /** Waits for the GPU. */
  readonly readbacks: number;
  /** Time at which the first token was known, as `performance.now()`; when aborted before it, the time of that. */
  readonly firstTokenAt: number;
  /** Whether the prompt was fed; otherwise the cache is as it was. */
  readonly fed: boolean;
}

interface Submit {
  readonly staging: Staging;
  readonly steps: number;
  readonly at: number;
  /** State before this submit, when rewindable; none for the prefill. */
  readonly before?: Checkpoint;
}

const WATCHED_MS = 30;
const WATCHED_STEPS = 4;
const UNWATCHED_MS = 120;
/** Twice what keeps read-backs under one in 8 tokens, because the prefill has one of its own. */
const UNWATCHED_STEPS = 16;
/** A wait shorter than this says that the device was idle before the host came to read. */
const IDLE_MS = 2;

/**
 * Aims at a submit's duration. A device that was idle can take more at once: each turn costs the host its sleep, however
 * few the steps.
 */
function nextSteps(last: number, turnMs: number, waitedMs: number, watched: boolean): number {
  const target = watched ? WATCHED_MS : UNWATCHED_MS;
  const idle = waitedMs < IDLE_MS && turnMs < target;
  const fitting = idle ? last * 4 : Math.round(last * target / Math.max(turnMs, 0.05));
  return Math.max(watched ? 1 : UNWATCHED_STEPS, Math.min(MAX_RUN_AHEAD, last * 4, fitting));
}

/**
 * Runs the loop. `start` submits the prefill, which samples each sequence's first token, and records with it what it is
 * given; it says whether it came to its end. Every later submit is some decode steps: commands are recorded while the
 * device works, and the next submit runs while the samples of the last are read.
 */
export async function decodeLoop(
  engine: Engine,
  run: DecodeRun,
  start: (record: (recorder: Recorder) => void) => Promise<boolean>,
  hooks: DecodeHooks,
): Promise<DecodeResult> {
  const { sequences, runAhead, rewindable } = run;
  const active = new Set(sequences.keys());
  const taken = sequences.map(() => 0);
  const stagings: Staging[] = [];
  const checkpoints: Checkpoint[] = [];
  try {
    for (let i = 0; i < 2; i++) {
      stagings.push(await engine.createSampleStaging());
      if (rewindable) checkpoints.push(await engine.createCheckpoint());
    }
    let submitted = 1;
    let steps = runAhead ?? (hooks.watched() ? WATCHED_STEPS : UNWATCHED_STEPS);
    let firstTokenAt = NaN;
    if (rewindable) engine.save(checkpoints[0]);
    if (!await start((recorder) => engine.copySamples(recorder, stagings[0]))) {
      hooks.flush();
      if (rewindable) engine.restore(checkpoints[0]);
      return { readbacks: 0, firstTokenAt: performance.now(), fed: false };
    }
    let inFlight: Submit = { staging: stagings[0], steps: 1, at: performance.now() };
    engine.beginDecode([...active]);
    for (let turn = 1;; turn++) {
      const left = Math.max(...[...active].map((i) => sequences[i].maxTokens)) - submitted;
      let next: Submit | undefined;
      let commands: GPUCommandBuffer | undefined;
      if (left > 0 && !hooks.aborted()) {
        const count = Math.min(steps, left);
        const staging = stagings[turn % 2];
        const before = checkpoints[turn % 2];
        const longest = Math.max(...[...active].map((i) => sequences[i].length)) + submitted - 1 + count;
        next = { staging, steps: count, at: 0, ...(before ? { before } : {}) };
        commands = engine.decode(count, longest, {
          ...(before ? { before } : {}),
          record: (recorder) => engine.copySamples(recorder, staging),
        });
      }
      // Returns when the device is idle; the sleep that follows is spent with the next submit running.
      const readAt = performance.now();
      const reading = inFlight.staging.read();
      const idleAt = performance.now();
      if (next && commands) {
        engine.gpu.device.queue.submit([commands]);
        next = { ...next, at: performance.now() };
        submitted += next.steps;
      }
      const data = await reading;
      if (turn === 1) firstTokenAt = performance.now();
      const before = active.size;
      const overshoot = process(engine, data, active, taken, hooks);
      hooks.flush();
      if (active.size === 0 || !next) {
        if (rewindable && overshoot) rewind(engine, overshoot, inFlight, next);
        return { readbacks: turn, firstTokenAt, fed: true };
      }
      if (active.size < before) engine.beginDecode([...active]);
      if (runAhead === undefined && turn > 1) {
        steps = nextSteps(inFlight.steps, idleAt - inFlight.at, idleAt - readAt, hooks.watched());
      }
      inFlight = next;
    }
  } finally {
    for (const part of [...stagings, ...checkpoints]) part.release();
  }
}

/** Steps that the device ran past what the host accepted of a sequence. */
interface Overshoot {
  /** Tokens of this submit that were accepted. */
  readonly accepted: readonly number[];
  /** How many the sequence has in all. */
  readonly total: number;
  /** Whether the submit sampled more. */
  readonly within: boolean;
}

/** Hands out the samples of a read-back; says where the host ended a sequence before the device did. */
function process(
  engine: Engine,
  data: ArrayBuffer,
  active: Set<number>,
  taken: number[],
  hooks: DecodeHooks,
): Overshoot | undefined {
  const { purpose } = engine.spec;
  if (purpose.type !== "sample") throw new TypeError("This engine does not sample");
  const { ring, logprobs } = purpose.sampling;
  const { states, samples, top } = engine.splitSamples(data);
  const progress = unpackStates(states, taken.length);
  let overshoot: Overshoot | undefined;
  for (const sequence of [...active]) {
    const { generated } = progress[sequence];
    const layout = { sequence, ring, topCount: logprobs ?? 0 };
    const accepted: number[] = [];
    let goesOn = true;
    for (const sample of unpackSamples(samples, top, layout, taken[sequence], generated)) {
      accepted.push(sample.id);
      taken[sequence]++;
      goesOn = hooks.take(sequence, sample) && sample.stopped === 0;
      if (!goesOn) {
        if (sample.stopped === 0) {
          overshoot = { accepted, total: taken[sequence], within: taken[sequence] < generated };
        }
        break;
      }
    }
    if (goesOn && hooks.aborted()) {
      goesOn = false;
      overshoot = { accepted, total: taken[sequence], within: false };
    }
    if (!goesOn) active.delete(sequence);
  }
  return overshoot;
}

/**
 * Brings the cache to where a run without run-ahead would have left it: back to the last checkpoint before the overshoot,
 * then the accepted tokens again, by the same kernels and so to the same bits.
 */
function rewind(
  engine: Engine,
  { accepted, total, within }: Overshoot,
  submit: Submit,
  next: Submit | undefined,
): void {
  if (!within) {
    if (next?.before) engine.restore(next.before);
    return;
  }
  if (!submit.before) throw new Error("A prefill samples one token and cannot overshoot");
  engine.restore(submit.before);
  engine.force(accepted, total);
  const commands = engine.decode(accepted.length, engine.spec.sizes.capacities[0]);
  engine.gpu.device.queue.submit([commands]);
}
