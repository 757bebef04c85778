// The index of a checkpoint in several files: which tensor is in which.

import { isObject, parseJsonObject, shown } from "./json_object.ts";

/**
 * Reads a `model.safetensors.index.json`, as Hugging Face libraries write it.
 *
 * @returns The file name of the shard that holds a tensor, by the tensor's name.
 * @throws {SyntaxError} when it is not such an index, or names a shard that is not a file beside it.
 */
export async function readShardIndex(path: string): Promise<ReadonlyMap<string, string>> {
  const index = parseJsonObject(await Deno.readTextFile(path), path);
  const { weight_map: weightMap } = index;
  if (!isObject(weightMap)) {
    throw new SyntaxError(
      `${path} has the weight_map ${
        shown(weightMap)
      }, not an object of tensor names and shards: download it again`,
    );
  }
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(weightMap)) {
    // The index is downloaded: it must not make this program open files elsewhere.
    if (typeof shard !== "string" || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      throw new SyntaxError(
        `${path} has the shard ${shown(shard)} for tensor ${
          shown(tensor)
        }, which is not the name of a .safetensors ` +
          "file beside it: download the checkpoint again",
      );
    }
    shards.set(tensor, shard);
  }
  return shards;
}
