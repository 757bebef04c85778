// Whether the machine has a graphics card, however little WebGPU knows of it.

import { join } from "@std/path";

/** A graphics card that WebGPU may not be able to use. */
export interface GraphicsCard {
  /** Who made it. */
  readonly vendor: "NVIDIA" | "AMD" | "Intel";
}

/** By PCI id; other display devices are those of virtual machines and servers' consoles. */
const VENDORS: Readonly<Record<string, GraphicsCard["vendor"]>> = {
  "0x10de": "NVIDIA",
  "0x1002": "AMD",
  "0x8086": "Intel",
};

/** By the name in udev's database. */
const VENDOR_NAMES: readonly (readonly [RegExp, GraphicsCard["vendor"]])[] = [
  [/NVIDIA/, "NVIDIA"],
  [/Advanced Micro Devices|\bATI\b/, "AMD"],
  [/Intel/, "Intel"],
];

/** What Deno does not let this process see is taken as absent: /proc, /sys and /dev need --allow-all. */
async function orNothing<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch {
    return undefined;
  }
}

async function names(directory: string): Promise<string[]> {
  return await orNothing(() => Array.fromAsync(Deno.readDir(directory), ({ name }) => name)) ?? [];
}

async function hasNvidiaDriver(root: string): Promise<boolean> {
  const signs = ["proc/driver/nvidia", "dev/nvidia0", "usr/bin/nvidia-smi"];
  const found = await Promise.all(signs.map((path) => orNothing(() => Deno.stat(join(root, path)))));
  return found.some((info) => info !== undefined);
}

async function pciVendors(root: string): Promise<GraphicsCard["vendor"][]> {
  const devices = join(root, "sys/bus/pci/devices");
  const found = await Promise.all((await names(devices)).map(async (name) => {
    const read = (file: string) => orNothing(() => Deno.readTextFile(join(devices, name, file)));
    const display = (await read("class"))?.startsWith("0x03");
    return display ? VENDORS[(await read("vendor"))?.trim() ?? ""] : undefined;
  }));
  return found.filter((vendor) => vendor !== undefined);
}

async function udevVendors(root: string): Promise<GraphicsCard["vendor"][]> {
  const database = join(root, "run/udev/data");
  const devices = (await names(database)).filter((name) => name.startsWith("+pci:"));
  const found = await Promise.all(devices.map(async (name) => {
    const text = await orNothing(() => Deno.readTextFile(join(database, name))) ?? "";
    if (!/ID_PCI_CLASS_FROM_DATABASE=Display controller/.test(text)) return undefined;
    const maker = /ID_VENDOR_FROM_DATABASE=(.*)/.exec(text)?.[1] ?? "";
    return VENDOR_NAMES.find(([pattern]) => pattern.test(maker))?.[1];
  }));
  return found.filter((vendor) => vendor !== undefined);
}

/** Looks for a card at the places where Linux shows one; the fastest maker's where there are several. */
export async function findGraphicsCard(root = "/"): Promise<GraphicsCard | undefined> {
  if (await hasNvidiaDriver(root)) return { vendor: "NVIDIA" };
  const seen = [...await pciVendors(root), ...await udevVendors(root)];
  const vendor = (["NVIDIA", "AMD", "Intel"] as const).find((each) => seen.includes(each));
  return vendor && { vendor };
}

/** Says that a card lies idle while the CPU does its work, and how to change that. */
export function idleCardWarning({ vendor }: GraphicsCard, adapter: string): string {
  const remedy = vendor === "NVIDIA"
    ? "install NVIDIA's driver and all of the loaders (apt-get install libvulkan1 libegl1 libglvnd0 libglx0 libgl1); in " +
      "a container also pass the card in, with NVIDIA_DRIVER_CAPABILITIES=all"
    : "install its Vulkan driver (apt-get install mesa-vulkan-drivers) and let this user open /dev/dri (groups render and " +
      "video; in a container --device /dev/dri)";
  return `This machine has a graphics card from ${vendor}, but only the CPU driver answers (${adapter}): ${remedy}`;
}
