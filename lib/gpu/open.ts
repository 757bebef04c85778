// Opening a device with its true limits and features.

import { GpuLostError } from "./errors.ts";
import { createMemory, type Memory } from "./memory.ts";
import { createPipelines, type Pipelines } from "./pipelines.ts";

/** Options of {@linkcode openGpu}. */
export interface OpenGpuOptions {
  /** A device the caller already has; it is then not destroyed on dispose. */
  readonly device?: GPUDevice;
  /** Ceiling in bytes for everything allocated through this `Gpu`. Default: none. */
  readonly memory?: number;
  /** Never use f16, even where the adapter has it. */
  readonly withoutF16?: boolean;
  /** Never use subgroup operations, even where the adapter has them. */
  readonly withoutSubgroups?: boolean;
}

/** What the device was granted. */
export interface GpuFeatures {
  /** `shader-f16`: 16-bit floats in storage. */
  readonly f16: boolean;
  /** Subgroup operations. */
  readonly subgroups: boolean;
  /** Smallest subgroup size that may occur. */
  readonly subgroupMinSize: number;
  /** Largest subgroup size that may occur. */
  readonly subgroupMaxSize: number;
  /** Timestamps of compute passes. */
  readonly timestamps: boolean;
}

/** The adapter's description of itself. */
export interface AdapterDescription {
  /** Vendor id or name. */
  readonly vendor: string;
  /** Device id or name. */
  readonly device: string;
  /** Name and driver as the adapter tells it. */
  readonly description: string;
  /** Whether this is a CPU driver. */
  readonly isFallback: boolean;
}

/** An open device: what every other part of the toolkit takes. */
export interface Gpu extends Disposable {
  /** The WebGPU device. */
  readonly device: GPUDevice;
  /** Granted features. */
  readonly features: GpuFeatures;
  /** The device's limits. */
  readonly limits: GPUSupportedLimits;
  /** The adapter's description. */
  readonly adapter: AdapterDescription;
  /** Allocation and byte accounting. */
  readonly memory: Memory;
  /** Compiled kernels. */
  readonly pipelines: Pipelines;
  /**
   * Passes a promise through, but rejects it when the device is lost or a submitted command was invalid.
   *
   * @throws {GpuLostError} when the device is lost.
   */
  guard<T>(promise: Promise<T>): Promise<T>;
  /** Throws when the device is lost or a submitted command was invalid. */
  check(): void;
}

/** Said when no adapter answers. */
export const NO_ADAPTER =
  "No WebGPU adapter answers on this machine. On a CPU, install a Vulkan driver: apt-get install " +
  "mesa-vulkan-drivers. On a GPU server, install the vendor's driver and the loaders: apt-get install libvulkan1 " +
  "libegl1 libglvnd0 libglx0 libgl1 (with libvulkan1 alone the NVIDIA driver gives no adapter)";

const COMPUTE_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxUniformBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
  "maxBindingsPerBindGroup",
  "minUniformBufferOffsetAlignment",
  "minStorageBufferOffsetAlignment",
] as const;

async function requestDevice(adapter: GPUAdapter, options: OpenGpuOptions): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name of COMPUTE_LIMITS) requiredLimits[name] = adapter.limits[name];
  const listed = (["shader-f16", "timestamp-query"] as const).filter((name) =>
    adapter.features.has(name) && !(name === "shader-f16" && options.withoutF16)
  );
  // Subgroups are granted though adapter.features does not list them, so they are asked for by trying.
  const wanted: GPUFeatureName[][] = options.withoutSubgroups
    ? [listed]
    : [[...listed, "subgroups" as GPUFeatureName], listed];
  let failure: unknown;
  for (const requiredFeatures of wanted) {
    try {
      return await adapter.requestDevice({ requiredFeatures, requiredLimits });
    } catch (error) {
      failure = error;
      // An adapter gives out one device only; ask for a fresh one.
      adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }) ?? adapter;
    }
  }
  throw new Error(
    `The adapter ${adapter.info.description || adapter.info.vendor} gave no device: ${
      failure instanceof Error ? failure.message : failure
    }`,
  );
}

function describe(info: GPUAdapterInfo | undefined): AdapterDescription {
  const description = info?.description ?? "";
  return {
    vendor: info?.vendor ?? "",
    device: info?.device ?? "",
    description,
    isFallback: (info as { isFallbackAdapter?: boolean } | undefined)?.isFallbackAdapter ??
      /llvmpipe|swiftshader|software/i.test(description),
  };
}

/**
 * Opens the machine's best adapter with all its compute limits, `shader-f16`, subgroups and timestamps where they are
 * granted, or wraps a device the caller already has.
 *
 * @throws {Error} when no adapter answers; the message says what to install.
 * @throws {RangeError} when `memory` is no positive number.
 */
export async function openGpu(options: OpenGpuOptions = {}): Promise<Gpu> {
  if (options.memory !== undefined && !(options.memory > 0)) {
    throw new RangeError(`memory must be a positive number of bytes: current value is ${options.memory}`);
  }
  let device = options.device;
  let info: GPUAdapterInfo | undefined;
  if (device) {
    info = (device as { adapterInfo?: GPUAdapterInfo }).adapterInfo;
  } else {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new Error(NO_ADAPTER);
    info = adapter.info;
    device = await requestDevice(adapter, options);
  }
  return wrapDevice(device, info, options);
}

function wrapDevice(device: GPUDevice, info: GPUAdapterInfo | undefined, options: OpenGpuOptions): Gpu {
  const pending = new Set<(reason: Error) => void>();
  let failure: Error | undefined;
  let disposed = false;
  const fail = (error: Error) => {
    failure ??= error;
    for (const reject of pending) reject(failure);
    pending.clear();
  };
  device.lost.then((lost) => {
    const reason = disposed || lost.reason === "destroyed"
      ? "it was destroyed"
      : lost.message || "no reason given";
    fail(
      new GpuLostError(
        `The GPU device is lost: ${reason}. Open it again with openGpu and load the model again`,
      ),
    );
  });
  const onError = (event: Event) => {
    const { error } = event as GPUUncapturedErrorEvent;
    event.preventDefault();
    fail(new Error(`The GPU rejected a command: ${error.message}`));
  };
  device.addEventListener("uncapturederror", onError);

  const check = (): void => {
    if (failure) throw failure;
  };
  const guard = <T>(promise: Promise<T>): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (failure) {
        // Who asked is told the failure; what the promise says of it as well is not heard.
        promise.catch(() => {});
        return reject(failure);
      }
      pending.add(reject);
      const settle = () => void pending.delete(reject);
      promise.then((value) => {
        settle();
        failure ? reject(failure) : resolve(value);
      }, (error) => {
        // What waits for a device that is lost is rejected a moment before the loss is told.
        setTimeout(() => {
          settle();
          reject(failure ?? error);
        }, 0);
      });
    });
  const memory = createMemory(device, options.memory, check);
  const pipelines = createPipelines(device);

  const sizes = info as { subgroupMinSize?: number; subgroupMaxSize?: number } | undefined;
  const gpu: Gpu = {
    device,
    features: {
      f16: device.features.has("shader-f16") && !options.withoutF16,
      subgroups: device.features.has("subgroups" as GPUFeatureName) && !options.withoutSubgroups,
      subgroupMinSize: sizes?.subgroupMinSize ?? 4,
      subgroupMaxSize: sizes?.subgroupMaxSize ?? 128,
      timestamps: device.features.has("timestamp-query"),
    },
    limits: device.limits,
    adapter: describe(info),
    memory,
    pipelines: {
      compile: (source) => guard(pipelines.compile(source)),
      get size() {
        return pipelines.size;
      },
    },
    check,
    guard,
    [Symbol.dispose](): void {
      if (disposed) return;
      disposed = true;
      device.removeEventListener("uncapturederror", onError);
      memory.dispose();
      if (!options.device) device.destroy();
      fail(new GpuLostError("The GPU device was disposed of: open it again with openGpu"));
    },
  };
  return gpu;
}
