// Policies as text, for command lines: `name:option=value,switch`, two of them joined by `+`.

import { parseNamedOptions } from "../named_options.ts";
import { composePolicies } from "./compose_policies.ts";
import type { KvPolicy } from "./policy.ts";
import { KV_POLICIES } from "./registry.ts";

function parseOne(text: string): KvPolicy {
  const { name, options } = parseNamedOptions(text, ["policy", "policies"], KV_POLICIES, true);
  return KV_POLICIES[name].make(options);
}

/**
 * Reads a policy: its name, then its options in kebab case, of which those that are true or false need no value:
 * `pyramid-infer:keep=0.45,same-layer`. Of two that are joined by `+`, the first prunes prompts and the second evicts
 * while tokens are generated: `snap-kv:keep=0.3+tova`.
 *
 * @throws {RangeError} a name or option that does not exist, with those that do, or a value out of its range
 */
export function parseKvPolicy(text: string): KvPolicy {
  const parts = text.split("+");
  if (parts.length > 2) {
    throw new RangeError(
      `At most two policies go together, one for prompts and one for what follows: received ${text}`,
    );
  }
  const [prefill, decode] = parts.map(parseOne);
  return decode ? composePolicies(prefill, decode) : prefill;
}
