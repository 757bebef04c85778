// The long soak: 2,000 generations; process memory must have no trend after the first 500.

import vm from "node:vm";
import v8 from "node:v8";
import { parseArgs } from "@std/cli/parse-args";
import { openGpu } from "../../lib/gpu/mod.ts";
import { loadModel } from "../../lib/models/mod.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { CEILING, slope, soak } from "./soak.ts";

const { generations: count } = parseArgs(Deno.args, { string: ["generations"] });
const generations = Number(count ?? 2000);
/** Memory is sampled after every so many generations, each kind of them equally often. */
const EVERY = 8;
/** Bytes of process memory a generation. */
const MOST = 1024;

// Garbage that nobody has collected yet is no leak, and its tide would hide one.
v8.setFlagsFromString("--expose-gc");
const collect: () => void = vm.runInNewContext("gc");

const gpu = await openGpu({ memory: CEILING });
const model = await loadModel(gpu, NOVEL_LLAMA);
const resident: number[] = [];
const started = performance.now();
await soak(model, {
  generations,
  onGeneration(index) {
    if ((index + 1) % EVERY !== 0) return;
    collect();
    const { rss, heapUsed } = Deno.memoryUsage();
    resident.push(rss);
    if ((index + 1) % (12 * EVERY) !== 0) return;
    const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    console.log(
      `${index + 1} generations in ${seconds} s: process ${mib(rss)} MiB, JavaScript ${mib(heapUsed)} MiB`,
    );
  },
});
model[Symbol.dispose]();
const left = gpu.memory.bytes;
gpu[Symbol.dispose]();

const warmUp = Math.ceil(resident.length / 4);
const trend = slope(resident.slice(warmUp)) / EVERY;
console.log(
  `Process memory after the first ${warmUp * EVERY} generations: ${trend.toFixed(0)} bytes a generation, ` +
    `under ${MOST} wanted`,
);
console.log(`Bytes on the GPU after dispose: ${left}`);
const passed = trend < MOST && left === 0;
console.log(passed ? "passed" : "FAILED");
Deno.exit(passed ? 0 : 1);
