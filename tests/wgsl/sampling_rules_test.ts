// What surrounds the draw: greedy ties, bias, penalties, forced tokens, stop ids, the allowance and the ring.

import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import {
  oracleDraw,
  oracleEdits,
  oracleKept,
  oracleLogits,
  oracleOrder,
  oracleScaled,
} from "../oracles/sampling.ts";
import { sampleAll, type SampledSequence, type SampledToken, seedOf, settingsOf } from "./sampling_call.ts";
import { sample } from "../../wgsl/sample.ts";

const options = { sanitizeOps: false, sanitizeResources: false };
const greedy = { temperature: 0 };
const PROMPT = 0x80000000;

for (const subgroups of [false, true]) {
  const how = subgroups ? "with subgroups" : "without subgroups";
  const run = async (
    sequences: readonly SampledSequence[],
    rest: { edits?: boolean; ring?: number; logprobs?: boolean } = {},
  ): Promise<SampledToken[]> =>
    await sampleAll(await sharedGpu({ withoutSubgroups: !subgroups }), sequences, {
      subgroups,
      ...rest,
    });
  const tokensOf = (results: readonly SampledToken[]): number[] => results.map((r) => r.token);

  Deno.test({
    name: `sample() at temperature 0 takes the largest logit, ties the lowest id, ${how}`,
    ...options,
    fn: async () => {
      const rows: [number[], number][] = [
        [[1, 3, 3, 2], 1],
        [[-1, -3, -1, -2], 0],
        [[NaN, -5, NaN, -6], 1],
        [[-Infinity, NaN, -3e38, -Infinity], 2],
        [[-Infinity, NaN, -Infinity, NaN], 0],
        [[-0, 0, -1, 0], 0],
        [[-1, 0, -0, 0], 1],
        [[1, Infinity, 3e38, 2], 1],
        [[-1e-40, -1e-30, -2, -3], 0],
        [[3e38, -3e38, 3.1e38, 0], 2],
      ];
      const sequences = rows.map(([logits]) => ({ logits: Float32Array.from(logits), settings: greedy }));
      assertEquals(tokensOf(await run(sequences)), rows.map(([, token]) => token));
      // Settings of a draw change nothing.
      const settings = { temperature: 0, topK: 2, topP: 0.1, minP: 0.5 };
      assertEquals(
        tokensOf(await run(sequences.map((sequence) => ({ ...sequence, settings })))),
        rows.map(([, token]) => token),
      );
      for (const vocab of [1, 7, 256, 2049, 9001]) {
        const wide = Array.from({ length: 6 }, (_, i) => {
          const logits = randomArray(vocab, vocab + i).map((z) => Math.round(z * 100));
          return { logits, settings: greedy };
        });
        const largest = wide.map(({ logits }) => logits.indexOf(Math.max(...logits)));
        assertEquals(tokensOf(await run(wide)), largest);
      }
    },
  });

  Deno.test({
    name: `sample() draws among equals when all logits are -infinity or NaN, ${how}`,
    ...options,
    fn: async () => {
      const logits = Float32Array.of(-Infinity, NaN, -Infinity);
      const sequences = Array.from({ length: 200 }, (_, i) => ({ logits, seed: { position: i + 1 } }));
      const scaled = new Float64Array(3);
      const ids = Uint32Array.of(0, 1, 2);
      assertEquals(
        tokensOf(await run(sequences)),
        sequences.map((sequence) => oracleDraw(scaled, seedOf(sequence), ids).token),
      );
    },
  });

  Deno.test({
    name: `sample() never draws a banned token, however high the temperature, ${how}`,
    ...options,
    fn: async () => {
      const sequences = Array.from({ length: 100 }, (_, i) => ({
        logits: Float32Array.of(-Infinity, 1, NaN, 2, 3),
        bias: Float32Array.of(0, 0, 0, 0, -Infinity),
        settings: { temperature: 3e38 },
        seed: { position: i + 1 },
      }));
      const ids = (edits: boolean) => edits ? Uint32Array.of(1, 3) : Uint32Array.of(1, 3, 4);
      for (const edits of [false, true]) {
        assertEquals(
          tokensOf(await run(sequences, { edits })),
          sequences.map((sequence) => oracleDraw(new Float64Array(5), seedOf(sequence), ids(edits)).token),
        );
      }
    },
  });

  Deno.test({
    name: `sample() applies bias, then penalties, ${how}`,
    ...options,
    fn: async () => {
      const row = (
        logits: number[],
        settings: SampledSequence["settings"],
        counts: number[],
        bias: number[],
        token: number,
      ): [SampledSequence, number] => [{
        logits: Float32Array.from(logits),
        settings: { temperature: 0, ...settings },
        counts: Uint32Array.from(counts),
        bias: Float32Array.from(bias),
      }, token];
      const none = [0, 0, 0];
      const rows = [
        row([1, 2, 3], {}, none, none, 2),
        row([1, 2, 3], {}, [PROMPT, 4, PROMPT + 7], none, 2),
        row([1, 2, 3], {}, none, [0, 1.5, 0], 1),
        row([1, 2, 3], {}, none, [0, -Infinity, -Infinity], 0),
        row([1, 2, 3], {}, none, [-Infinity, -Infinity, -Infinity], 0),
        // Repetition: prompt and output, positive logits divided, negative ones multiplied.
        row([1, 2, 3], { repetitionPenalty: 2 }, [0, 0, PROMPT], none, 1),
        row([1, 2, 3], { repetitionPenalty: 2 }, [0, 0, 1], none, 1),
        row([1, 2, 3], { repetitionPenalty: 1.4 }, [0, 0, PROMPT + 3], none, 2),
        row([-1, -1.5, -1.9], { repetitionPenalty: 2 }, [PROMPT, 0, 0], none, 1),
        row([-1, -1.5, -1.9], { repetitionPenalty: 1.4 }, [PROMPT, 0, 0], none, 0),
        // Bias comes first: -1 + 3 is divided, not multiplied.
        row([0.5, -1, 0], { repetitionPenalty: 4 }, [0, PROMPT, 0], [0, 3.5, 0], 1),
        // A penalty below 1 favours, but lifts no banned token.
        row([1, 2, 3], { repetitionPenalty: 0.5 }, [PROMPT, 0, 0], [1, 0, 0], 0),
        row([-3e38, 2, 3], { repetitionPenalty: 0.5 }, [0, PROMPT, 0], [0, -Infinity, -Infinity], 0),
        row([NaN, -3e38, -9], { repetitionPenalty: 0.5 }, [PROMPT, 0, 0], [0, 0, -Infinity], 1),
        // Frequency counts, presence does not, and neither looks at the prompt.
        row([1, 2, 3], { frequencyPenalty: 0.5 }, [0, 0, 3], none, 1),
        row([1, 2, 3], { frequencyPenalty: 0.5 }, [0, 0, PROMPT + 1], none, 2),
        row([1, 2, 3], { frequencyPenalty: 9 }, [0, 0, PROMPT], none, 2),
        row([1, 2, 3], { frequencyPenalty: -0.6 }, [0, 2, 0], none, 1),
        row([1, 2, 3], { presencePenalty: 1.5 }, [0, 0, 1], none, 1),
        row([1, 2, 3], { presencePenalty: 0.75 }, [0, 0, 9], none, 2),
        row([1, 2, 3], { presencePenalty: 9 }, [0, 0, PROMPT], none, 2),
        // All together: 6 / 2 - 0.25 * 2 - 0.5 = 2 against 1.9 and 2.1.
        row([1.9, 5, 0], { repetitionPenalty: 2, frequencyPenalty: 0.25, presencePenalty: 0.5 }, [0, 2, 0], [
          0,
          1,
          0,
        ], 1),
        row([2.1, 5, 0], { repetitionPenalty: 2, frequencyPenalty: 0.25, presencePenalty: 0.5 }, [0, 2, 0], [
          0,
          1,
          0,
        ], 0),
      ];
      const results = await run(rows.map(([sequence]) => sequence), { edits: true });
      assertEquals(tokensOf(results), rows.map(([, token]) => token));
    },
  });

  Deno.test({
    name: `sample() draws from edited logits, ${how}`,
    ...options,
    fn: async () => {
      const vocab = 300;
      const sequences = Array.from({ length: 200 }, (_, i): SampledSequence => {
        const random = randomArray(2 * vocab, 40 + i);
        return {
          // In sixteenths, so that f32 has the edited logits exactly.
          logits: randomArray(vocab, 900 + i, 5).map((z) => Math.round(z * 16) / 16),
          bias: random.slice(0, vocab).map((z) => z > 0.9 ? -Infinity : Math.round(z * 16) / 16),
          counts: Uint32Array.from(
            random.slice(vocab),
            (z) => (z > 0.5 ? PROMPT : 0) + (z > 0 && z < 0.7 ? Math.floor(z * 8) : 0),
          ),
          settings: {
            temperature: i % 2 ? 1 : 4,
            repetitionPenalty: i % 3 ? 2 : 0.5,
            frequencyPenalty: i % 5 ? 0.25 : -0.5,
            presencePenalty: i % 7 ? 0.5 : 0,
            topK: i % 4 === 0 ? 20 : 0,
            topP: i % 4 === 1 ? 0.8 : 1,
            minP: i % 4 === 2 ? 0.1 : 0,
          },
          seed: { seedLow: i },
        };
      });
      const results = await run(sequences, { edits: true });
      sequences.forEach((sequence, i) => {
        const settings = settingsOf(sequence);
        const z = oracleEdits(oracleLogits(sequence.logits), sequence.bias!, sequence.counts!, settings);
        const scaled = oracleScaled(z, settings.temperature);
        const order = oracleOrder(z);
        const { least, most } = oracleKept(scaled, order, settings);
        if (least !== most) return;
        const { token, lead } = oracleDraw(scaled, seedOf(sequence), order.subarray(0, least));
        if (lead > 1e-4) assertEquals(results[i].token, token, `sequence ${i}`);
      });
    },
  });

  Deno.test({
    name: `sample() gives forced tokens first and counts them, ${how}`,
    ...options,
    fn: async () => {
      const logits = Float32Array.of(0, 5, 1);
      const base = { logits, settings: greedy, forced: [2, 0], stopIds: [2] };
      const rows: [SampledSequence, number, number][] = [
        [base, 2, 0],
        [{ ...base, generated: 1 }, 0, 0],
        [{ ...base, generated: 2 }, 1, 0],
        // A forced token stops nothing by its id, but the allowance holds.
        [{ ...base, remaining: 1 }, 2, 2],
        [{ ...base, generated: 1, remaining: 2 }, 0, 0],
      ];
      for (const edits of [false, true]) {
        const results = await run(rows.map(([sequence]) => sequence), { edits });
        assertEquals(results.map((r) => [r.token, r.stopped]), rows.map(([, ...wanted]) => wanted));
        if (edits) {
          assertEquals(
            results.map((r) => [...r.counts!]),
            rows.map(([, token]) => [0, 1, 2].map((id) => id === token ? 1 : 0)),
          );
        }
      }
    },
  });

  Deno.test({
    name: `sample() ends at stop ids and at the allowance, and leaves done sequences alone, ${how}`,
    ...options,
    fn: async () => {
      const logits = Float32Array.of(0, 5, 1);
      const base: SampledSequence = {
        logits,
        settings: greedy,
        seed: { position: 31 },
        generated: 8,
        remaining: 3,
      };
      const counts = Uint32Array.of(1, PROMPT + 4, 0);
      const rows: [SampledSequence, Partial<SampledToken>, number[] | undefined][] = [
        [base, { token: 1, stopped: 0, state: [0, 31, 1, 9, 2] }, [1, PROMPT + 5, 0]],
        [{ ...base, stopIds: [0, 2] }, { token: 1, stopped: 0, state: [0, 31, 1, 9, 2] }, [1, PROMPT + 5, 0]],
        // A stop token is no part of the text.
        [{ ...base, stopIds: [0, 1] }, { token: 1, stopped: 1, state: [1, 31, 1, 9, 2] }, [1, PROMPT + 4, 0]],
        [{ ...base, remaining: 1 }, { token: 1, stopped: 2, state: [1, 31, 1, 9, 0] }, [1, PROMPT + 5, 0]],
        [{ ...base, remaining: 1, stopIds: [1] }, { token: 1, stopped: 1, state: [1, 31, 1, 9, 0] }, [
          1,
          PROMPT + 4,
          0,
        ]],
        [{ ...base, remaining: 0 }, { token: 1, stopped: 2, state: [1, 31, 1, 9, 0] }, [1, PROMPT + 5, 0]],
        [{ ...base, remaining: 2 }, { token: 1, stopped: 0, state: [0, 31, 1, 9, 1] }, [1, PROMPT + 5, 0]],
        [{ ...base, done: true, stopIds: [1] }, { state: [1, 30, 77, 8, 3] }, [1, PROMPT + 4, 0]],
      ];
      for (const edits of [false, true]) {
        const results = await run(rows.map(([sequence]) => ({ ...sequence, counts })), { edits });
        rows.forEach(([, wanted, wantedCounts], i) => {
          const got = results[i];
          assertEquals(
            { token: got.token, stopped: got.stopped, state: got.state },
            {
              token: got.token,
              stopped: got.stopped,
              ...wanted,
            } as typeof wanted,
            `row ${i}`,
          );
          if (edits) assertEquals([...got.counts!], wantedCounts, `row ${i}`);
        });
      }
    },
  });

  Deno.test({
    name: `sample() goes round the ring, ${how}`,
    ...options,
    fn: async () => {
      // The call itself checks that only entry generated % ring was written.
      const sequences = Array.from({ length: 12 }, (_, generated): SampledSequence => ({
        logits: randomArray(30, generated),
        settings: greedy,
        generated,
      }));
      for (const ring of [1, 3, 5]) {
        const results = await run(sequences, { ring });
        assertEquals(
          tokensOf(results),
          sequences.map(({ logits }) => logits.indexOf(Math.max(...logits))),
        );
      }
    },
  });

  Deno.test({
    name: `sample() gives the log-probability under the raw logits when asked, ${how}`,
    ...options,
    fn: async () => {
      const sequence: SampledSequence = {
        logits: Float32Array.of(1, 7.25, 3),
        settings: { ...greedy, temperature: 0 },
        logSumExp: 7.5,
        bias: Float32Array.of(20, 0, 0),
      };
      const [plain] = await run([sequence], { logprobs: true });
      assertEquals([plain.token, plain.logProbability, plain.logSumExp], [1, -0.25, 7.5]);
      const [edited] = await run([sequence], { logprobs: true, edits: true });
      assertAlmostEquals(edited.logProbability, -6.5, 1e-6);
      assertEquals([edited.token, edited.logSumExp], [0, 7.5]);
      const [forced] = await run([{ ...sequence, forced: [2] }], { logprobs: true });
      assertEquals([forced.token, forced.logProbability], [2, -4.5]);
      const [unasked] = await run([sequence]);
      assertEquals([unasked.logProbability, unasked.logSumExp], [0, 0]);
    },
  });
}

Deno.test("sample() folds its grid and says what it binds", () => {
  const kernel = sample({ subgroups: false, edits: false });
  assert(kernel.bindings.length <= 10);
  const [x, y, z] = kernel.grid({ rows: 70_000, vocab: 1, ring: 1, logprobs: 0 });
  assert(x <= 65535 && x * y >= 70_000 && z === 1);
});
