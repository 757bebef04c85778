// The pipeline cache: compiled asynchronously and in parallel, one pipeline a source text. Knows WGSL only as text.

import { KernelError } from "./errors.ts";

/** What the cache needs of a kernel. */
export interface PipelineSource {
  /** Readable name, for errors. */
  readonly name: string;
  /** WGSL with the entry point `main`. */
  readonly code: string;
  /** Access of the storage bindings from binding 1 on; binding 0 is the uniform block. */
  readonly access: readonly ("read" | "write")[];
}

/** A compiled kernel. */
export interface Pipeline {
  /** Readable name of the kernel that was compiled first from this source. */
  readonly name: string;
  /** The WebGPU pipeline. */
  readonly pipeline: GPUComputePipeline;
  /** Its only bind group's layout. */
  readonly layout: GPUBindGroupLayout;
  /** Time the driver took, in ms. */
  readonly compileMs: number;
}

/** Pipelines of one device by source. */
export interface Pipelines {
  /**
   * Compiles, or returns what was compiled from the same source.
   *
   * @throws {KernelError} when the WGSL is rejected.
   */
  compile(source: PipelineSource): Promise<Pipeline>;
  /** Number of distinct sources compiled. */
  readonly size: number;
}

/** Shows the lines around an error with their numbers. */
export function numberedLines(code: string, line: number, context = 4): string {
  const lines = code.split("\n");
  const first = line > 0 ? Math.max(1, line - context) : 1;
  const last = line > 0 ? Math.min(lines.length, line + context) : lines.length;
  return lines.slice(first - 1, last).map((text, i) => {
    const number = first + i;
    return `${number === line ? ">" : " "}${String(number).padStart(4)} | ${text}`;
  }).join("\n");
}

/** Makes the pipeline cache of a device. */
export function createPipelines(device: GPUDevice): Pipelines {
  const cache = new Map<string, Promise<Pipeline>>();
  const layouts = new Map<string, GPUBindGroupLayout>();

  const layoutOf = (access: PipelineSource["access"]): GPUBindGroupLayout => {
    const key = access.join();
    let layout = layouts.get(key);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [
        { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } },
        ...access.map((kind, i) => ({
          binding: i + 1,
          visibility: GPUShaderStage.COMPUTE,
          buffer: { type: (kind === "read" ? "read-only-storage" : "storage") as GPUBufferBindingType },
        })),
      ];
      layout = device.createBindGroupLayout({ entries });
      layouts.set(key, layout);
    }
    return layout;
  };

  const compile = async (source: PipelineSource): Promise<Pipeline> => {
    const start = performance.now();
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ label: source.name, code: source.code });
    const scope = device.popErrorScope();
    const info = await module.getCompilationInfo();
    const invalid = await scope;
    const message = info.messages.find((m) => m.type === "error");
    if (message || invalid) {
      const line = message?.lineNum ?? 0;
      throw new KernelError(
        `Kernel ${source.name} does not compile: ${message?.message ?? invalid?.message}\n` +
          numberedLines(source.code, line),
      );
    }
    device.pushErrorScope("validation");
    const layout = layoutOf(source.access);
    const made = device.createComputePipelineAsync({
      label: source.name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    }).then((pipeline) => ({ pipeline }), (error: unknown) => ({ error }));
    const rejected = device.popErrorScope();
    const result = await made;
    const validation = await rejected;
    if ("error" in result || validation) {
      const reason = validation?.message ??
        ("error" in result && result.error instanceof Error ? result.error.message : "no reason given");
      throw new KernelError(
        `Kernel ${source.name} cannot be made a pipeline: ${reason}\n${numberedLines(source.code, 0)}`,
      );
    }
    return { name: source.name, pipeline: result.pipeline, layout, compileMs: performance.now() - start };
  };

  return {
    compile(source: PipelineSource): Promise<Pipeline> {
      let pipeline = cache.get(source.code);
      if (!pipeline) {
        pipeline = compile(source);
        cache.set(source.code, pipeline);
        pipeline.catch(() => cache.delete(source.code));
      }
      return pipeline;
    },
    get size() {
      return cache.size;
    },
  };
}
