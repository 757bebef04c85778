import { assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, join } from "@std/path";
import { findGraphicsCard, type GraphicsCard, idleCardWarning } from "../../lib/cli/graphics_card.ts";

/** Files of a machine, by path. */
type Machine = Readonly<Record<string, string>>;

function pci(address: string, type: string, vendor: string): Machine {
  const folder = `sys/bus/pci/devices/0000:${address}`;
  return { [`${folder}/class`]: `${type}\n`, [`${folder}/vendor`]: `${vendor}\n` };
}

const machines: readonly (readonly [string, Machine, GraphicsCard["vendor"] | undefined])[] = [
  ["nothing", {}, undefined],
  ["NVIDIA's driver", { "proc/driver/nvidia/version": "580" }, "NVIDIA"],
  ["NVIDIA's device file", { "dev/nvidia0": "" }, "NVIDIA"],
  ["NVIDIA's tool", { "usr/bin/nvidia-smi": "" }, "NVIDIA"],
  ["a display device of NVIDIA", pci("01:00.0", "0x030200", "0x10de"), "NVIDIA"],
  ["a display device of AMD", pci("01:00.0", "0x030000", "0x1002"), "AMD"],
  ["one of Intel and one of AMD", {
    ...pci("00:02.0", "0x030000", "0x8086"),
    ...pci("01:00.0", "0x030000", "0x1002"),
  }, "AMD"],
  ["a virtual machine's display", pci("00:01.0", "0x030000", "0x1234"), undefined],
  ["a network card of Intel", pci("00:03.0", "0x020000", "0x8086"), undefined],
  ["a display in udev's database", {
    "run/udev/data/+pci:0000:01:00.0":
      "E:ID_PCI_CLASS_FROM_DATABASE=Display controller\nE:ID_VENDOR_FROM_DATABASE=NVIDIA Corporation\n",
  }, "NVIDIA"],
  ["a bridge in udev's database", {
    "run/udev/data/+pci:0000:00:00.0":
      "E:ID_PCI_CLASS_FROM_DATABASE=Bridge\nE:ID_VENDOR_FROM_DATABASE=Intel Corporation\n",
  }, undefined],
];

for (const [name, files, vendor] of machines) {
  Deno.test(`findGraphicsCard() sees ${vendor ?? "no card"} on a machine with ${name}`, async () => {
    const root = await Deno.makeTempDir();
    try {
      for (const [path, content] of Object.entries(files)) {
        await Deno.mkdir(dirname(join(root, path)), { recursive: true });
        await Deno.writeTextFile(join(root, path), content);
      }
      assertEquals(await findGraphicsCard(root), vendor && { vendor });
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  });
}

Deno.test("findGraphicsCard() takes what it may not see as absent", async () => {
  const code = `
    import { findGraphicsCard } from ${JSON.stringify(import.meta.resolve("../../lib/cli/graphics_card.ts"))};
    console.log(await findGraphicsCard());
  `;
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-prompt", "--ext=ts", code],
    cwd: dirname(dirname(import.meta.dirname!)),
  }).output();
  assertEquals(success, true);
});

Deno.test("idleCardWarning() names card, driver and remedy", () => {
  const nvidia = idleCardWarning({ vendor: "NVIDIA" }, "llvmpipe");
  for (const part of ["NVIDIA", "llvmpipe", "libvulkan1 libegl1"]) assertStringIncludes(nvidia, part);
  const amd = idleCardWarning({ vendor: "AMD" }, "llvmpipe");
  for (const part of ["AMD", "mesa-vulkan-drivers", "/dev/dri"]) assertStringIncludes(amd, part);
});
