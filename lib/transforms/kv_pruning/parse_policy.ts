// Policies as text, for command lines: `name:option=value,switch`, two of them joined by `+`.

import { nearestName } from "../nearest_name.ts";
import { composePolicies } from "./compose_policies.ts";
import type { KvPolicy } from "./policy.ts";
import { KV_POLICIES, type PolicyOptionType } from "./registry.ts";

/** `sameLayer` as `same-layer`. */
function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What a value says; text that says nothing of its type stays text, and the policy names the range. */
function valueOf(text: string | undefined, type: PolicyOptionType): unknown {
  if (type === "boolean") {
    return text === undefined || text === "true" ? true : text === "false" ? false : text;
  }
  if (typeof type !== "string" || text === undefined || text.trim() === "") return text ?? "nothing";
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

function unknown(what: string, word: string, names: readonly string[], listed: string): never {
  const nearest = nearestName(word, names);
  const meant = nearest ? `: did you mean ${nearest}? ${listed}` : `: ${listed}`;
  throw new RangeError(`There is no ${what} ${JSON.stringify(word)}${meant}`);
}

function parseOne(text: string): KvPolicy {
  const colon = text.indexOf(":");
  const name = (colon < 0 ? text : text.slice(0, colon)).trim();
  const names = Object.keys(KV_POLICIES);
  if (!Object.hasOwn(KV_POLICIES, name)) {
    unknown("policy", name, names, `The policies are ${names.join(", ")}`);
  }
  const entry = KV_POLICIES[name];
  const known = new Map(Object.keys(entry.options).map((option) => [kebabCase(option), option]));
  const options: Record<string, unknown> = {};
  const parts = colon < 0 ? [] : text.slice(colon + 1).split(",");
  for (const part of parts) {
    const equals = part.indexOf("=");
    const word = (equals < 0 ? part : part.slice(0, equals)).trim();
    const option = known.get(word);
    if (option === undefined) {
      unknown(
        `option of ${name}`,
        word,
        [...known.keys()],
        `Its options are ${[...known.keys()].join(", ")}`,
      );
    }
    if (Object.hasOwn(options, option)) throw new RangeError(`${name} is given ${word} twice: leave one out`);
    const value = equals < 0 ? undefined : part.slice(equals + 1).trim();
    options[option] = valueOf(value, entry.options[option]);
  }
  return entry.make(options);
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
