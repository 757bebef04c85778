/** Both kinds of zero are one value here, and NaN is itself. */
function sameValue(a: unknown, b: unknown): boolean {
  return a === b || Object.is(a, b);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** An object without a prototype stands for a plain one. */
function samePrototype(a: object, b: object): boolean {
  const [left, right] = [a, b].map((value) => Object.getPrototypeOf(value) ?? Object.prototype);
  return left === right;
}

/** Getters on a class count as much as own fields, so the chain is walked up to the built-in roots. */
function propertyNames(value: object): Set<PropertyKey> {
  const names = new Set<PropertyKey>();
  let holder: object | null = value;
  while (holder !== null && holder !== Object.prototype && holder !== Array.prototype) {
    for (const name of Reflect.ownKeys(holder)) names.add(name);
    holder = Object.getPrototypeOf(holder);
  }
  return names;
}

/** In plain objects and arrays hidden properties, such as an array's `length`, are left out. */
function comparedNames(a: object, b: object): Iterable<PropertyKey> {
  const prototype = Object.getPrototypeOf(a);
  if (prototype === null || prototype === Object.prototype || prototype === Array.prototype) {
    return Reflect.ownKeys({ ...a, ...b });
  }
  return propertyNames(a).union(propertyNames(b));
}

type Elements = ArrayLike<number | bigint>;

/** Typed arrays and buffers element by element; undefined for anything else. */
function elements(value: object): Elements | undefined {
  if (ArrayBuffer.isView(value)) return value instanceof DataView ? undefined : value as unknown as Elements;
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value);
  return undefined;
}

function step(name: PropertyKey): string {
  if (typeof name === "symbol") return `[${String(name)}]`;
  const text = String(name);
  if (/^\d+$/.test(text)) return `[${text}]`;
  return /^[A-Za-z_$][\w$]*$/.test(text) ? `.${text}` : `[${JSON.stringify(text)}]`;
}

/**
 * Where two values first differ, compared in depth as `equal` of `@std/assert` does: same prototype, same keys, same
 * content, `0` equals `-0` and `NaN` equals `NaN`.
 *
 * @returns The path to the first difference, such as `[2].shape[0]` (empty for the values themselves), or undefined
 *   when they are equal.
 * @throws {TypeError} For a `WeakMap` or `WeakSet`, whose content cannot be seen.
 */
export function difference(
  a: unknown,
  b: unknown,
  path = "",
  seen: Map<object, object> = new Map(),
): string | undefined {
  if (sameValue(a, b)) return undefined;
  if (!isObject(a) || !isObject(b)) return path;
  if (a instanceof Date && b instanceof Date) {
    return Object.is(a.getTime(), b.getTime()) ? undefined : path;
  }
  if (!samePrototype(a, b)) return path;
  if (a instanceof WeakMap || a instanceof WeakSet) {
    throw new TypeError(`Cannot compare ${a.constructor.name} instances`);
  }

  const [left, right] = [elements(a), elements(b)];
  if (left && right) {
    if (left.length !== right.length) return `${path}.length`;
    for (let i = 0; i < left.length; i++) {
      if (!sameValue(left[i], right[i])) return `${path}[${i}]`;
    }
    return undefined;
  }

  // A pair that is being compared further up is a cycle: it differs where the rest differs, or nowhere.
  if (seen.get(a) === b) return undefined;
  if (Object.keys(a).length !== Object.keys(b).length) return path;
  seen.set(a, b);
  const found = contentDifference(a, b, path, seen);
  if (found !== undefined) seen.delete(a);
  return found;
}

function contentDifference(
  a: object,
  b: object,
  path: string,
  seen: Map<object, object>,
): string | undefined {
  if (a instanceof Map && b instanceof Map) return sameEntries(a, b, seen) ? undefined : path;
  if (a instanceof Set && b instanceof Set) return sameMembers(a, b, seen) ? undefined : path;
  if (a instanceof RegExp || a instanceof URL || a instanceof URLSearchParams) {
    return String(a) === String(b) ? undefined : path;
  }
  for (const name of comparedNames(a, b)) {
    const inner = path + step(name);
    if (name in a !== name in b) return inner;
    const found = difference(Reflect.get(a, name), Reflect.get(b, name), inner, seen);
    if (found !== undefined) return found;
  }
  return undefined;
}

function same(a: unknown, b: unknown, seen: Map<object, object>): boolean {
  return difference(a, b, "", seen) === undefined;
}

function sameMembers(a: Set<unknown>, b: Set<unknown>, seen: Map<object, object>): boolean {
  if (a.size !== b.size) return false;
  return a.values().every((member) => b.has(member) || b.values().some((other) => same(member, other, seen)));
}

function sameEntries(a: Map<unknown, unknown>, b: Map<unknown, unknown>, seen: Map<object, object>): boolean {
  if (a.size !== b.size) return false;
  return a.entries().every(([key, value]) => {
    if (b.has(key)) return same(value, b.get(key), seen);
    return b.entries().some(([other, held]) => same(key, other, seen) && same(value, held, seen));
  });
}
