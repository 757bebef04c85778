// Which models an example runs over: those that are named, or those that come along.

/** Folders of models, and what goes by the name of each. */
export interface ModelFolder {
  readonly name: string;
  readonly path: string;
}

/** The folders between commas, or those of the examples' models; those that are missing are named on standard error. */
export function modelFolders(list: string): ModelFolder[] {
  const own = new URL("./models", import.meta.url).pathname;
  const paths = list === ""
    ? [...Deno.readDirSync(own)].filter(({ isDirectory }) => isDirectory).map(({ name }) => `${own}/${name}`)
      .sort()
    : list.split(",").map((path) => path.trim()).filter((path) => path !== "");
  return paths.flatMap((path) => {
    try {
      Deno.statSync(`${path}/config.json`);
    } catch {
      console.error(`There is no model in ${path}: it is left out`);
      return [];
    }
    return [{ name: path.replace(/\/+$/, "").split("/").at(-1)!, path }];
  });
}
