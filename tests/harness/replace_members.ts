// Objects of the platform with some members replaced, so that a test can see calls, or pretend other limits.

import type { Gpu } from "../../lib/gpu/mod.ts";

/** An object with some members replaced; everything else is the real one's. */
export function replaceMembers<T extends object>(target: T, members: Partial<Record<keyof T, unknown>>): T {
  return new Proxy(target, {
    get(_, name): unknown {
      if (Object.hasOwn(members, name)) return members[name as keyof T];
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The same device, pretending other limits. */
export function limitGpu(gpu: Gpu, limits: Partial<Record<keyof GPUSupportedLimits, number>>): Gpu {
  return { ...gpu, limits: replaceMembers(gpu.limits, limits) };
}
