// Every policy against an f64 reference: which tokens each layer and head keep of a prompt, and the texts that follow.

import { assert, assertEquals, assertLess } from "@std/assert";
import { generate, type GenerateRecord, session } from "../../../lib/generate/mod.ts";
import { withKvPruning } from "../../../lib/transforms/mod.ts";
import { randomArray, sharedGpu } from "../../harness/kernel_case.ts";
import { loadRandomLlama, oracleTensors, randomLlama } from "../../harness/random_llama.ts";
import { LAYERS, POLICY_CASES } from "./policy_cases.ts";
import { type OracleResult, PolicyOracle } from "./policy_oracle.ts";

const made = randomLlama({
  hidden_size: 24,
  intermediate_size: 32,
  num_hidden_layers: LAYERS,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  vocab_size: 128,
}, 3);
const tensors = oracleTensors(made);
const model = await loadRandomLlama(await sharedGpu(), made);
const OPTIONS = { temperature: 0, ignoreEos: true, logprobs: 2, traceKept: true } as const;

/** Lengths of the first and the second turn: tokens, most new tokens. */
const FIRST = [70, 40];
const SECOND = [30, 12];

function assertTurn(record: GenerateRecord, want: OracleResult, name: string): void {
  // Positions come by KV head; heads that share their tokens say so alike.
  assertEquals(record.kept, want.promptKept, `${name}: kept of the prompt`);
  assertEquals(record.ids, want.ids, name);
  record.logprobs!.forEach(({ logprob }, i) =>
    assertLess(Math.abs(logprob - want.logprobs[i]), 1e-3, `${name}: ${i}`)
  );
  const mean = want.kept.map((heads) => heads.reduce((sum, own) => sum + own.length, 0) / heads.length);
  assertEquals(record.cacheTokens, mean, `${name}: tokens at the end`);
}

for (const { name, policy, oracle: settings, again = true, ties = false } of POLICY_CASES) {
  Deno.test(`${name} keeps what its paper says, and goes on so, in two turns`, async () => {
    const pruned = withKvPruning(policy)(model);
    const oracle = new PolicyOracle(made.config, tensors, settings);
    using chat = session(pruned);
    // No token twice: their keys would be equally long.
    const shuffled = [...randomArray(128, 5)].map((value, i) => [value, i]).sort(([a], [b]) => a - b).map((
      [, i],
    ) => i);
    const first = shuffled.slice(0, FIRST[0]);
    const want = oracle.turn(first, FIRST[1]);
    const record = await chat.generate(first, { ...OPTIONS, maxTokens: FIRST[1] }).record;
    assertTurn(record, want, name);
    // Nothing was near a tie, or the comparison could not be exact.
    if (!ties) assertEquals(oracle.ties, 0);
    assert(oracle.leastGap > 1e-5, `gap ${oracle.leastGap}`);
    assert(oracle.leastMargin > 1e-4, `margin ${oracle.leastMargin}`);
    assertEquals(oracle.evicted > 0, settings.evicts !== undefined);
    if (settings.spread !== undefined) {
      assert(want.promptKept.some((heads) => heads.some((own) => own.length !== heads[0].length)));
    }
    if (!again) return;
    const second = shuffled.slice(FIRST[0], FIRST[0] + SECOND[0]);
    const next = oracle.turn([want.ids.at(-1)!, ...second], SECOND[1]);
    assertTurn(
      await chat.generate(second, { ...OPTIONS, maxTokens: SECOND[1] }).record,
      next,
      `${name}, second turn`,
    );
  });
}
void generate;
