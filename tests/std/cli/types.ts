/**
 * The types of `parseArgs`: what the options say of the result.
 *
 * @module
 */

/** One type of all the members of an intersection, so that it reads as one object. */
type Flat<T> = { [K in keyof T]: T[K] };

/** One option given several times is a list where it is collected; `--no-x` adds `false`. */
type Typed<Names, Type, Collectable, Negatable> =
  & {
    [K in Exclude<Names, Collectable> & string]?: Type | (K extends Negatable ? false : never);
  }
  & {
    [K in Extract<Names, Collectable> & string]: Type[] | (K extends Negatable ? false : never);
  };

/** An option with a default is always there, with the default's type added. */
type WithDefaults<Options, Defaults> = Defaults extends Record<string, unknown> ?
    & Omit<Options, keyof Defaults>
    & {
      [K in keyof Defaults]: Defaults[K] | (K extends keyof Options ? NonNullable<Options[K]> : unknown);
    }
  : Options;

/** The options that are known by name; all of them are `any` where neither booleans, strings nor lists are named. */
export type Values<Booleans, Strings, Collectable, Negatable, Defaults> =
  [Booleans | Strings | Collectable] extends [undefined | false]
    // deno-lint-ignore no-explicit-any
    ? Record<string, any>
    :
      & Record<string, unknown>
      & WithDefaults<
        & Typed<Strings, string, Collectable, Negatable>
        & Required<Typed<Booleans, boolean, Collectable, undefined>>
        & Typed<
          Extract<Collectable, Exclude<Collectable, Strings | Booleans>>,
          unknown,
          Collectable,
          Negatable
        >,
        Defaults
      >;

/** What `parseArgs` gives. */
export type Args<
  // deno-lint-ignore no-explicit-any
  TArgs = Record<string, any>,
  TDoubleDash extends boolean | undefined = undefined,
> = Flat<
  & TArgs
  & {
    /** What belongs to no option. */
    _: (string | number)[];
  }
  & (true extends TDoubleDash ? {
      /** What follows a `--`. */
      "--": string[];
    }
    : unknown)
>;

/** What is known of the options. A name may be given alone or in a list. */
export interface ParseOptions<
  TBooleans extends boolean | string | undefined = boolean | string | undefined,
  TStrings extends string | undefined = string | undefined,
  TCollectable extends string | undefined = string | undefined,
  TNegatable extends string | undefined = string | undefined,
  TDefaults extends Record<string, unknown> | undefined = Record<string, unknown> | undefined,
  TDoubleDash extends boolean | undefined = boolean | undefined,
> {
  /** Keep what follows a `--` in a list of its own; by default it is added to `_`. */
  "--"?: TDoubleDash;
  /** Other names of an option. */
  alias?: Record<string, string | readonly string[]>;
  /** Options that are true or false, false when not given; `true`: all long ones without an equal sign. */
  boolean?: TBooleans | readonly Extract<TBooleans, string>[];
  /** Values of options that are not given. */
  default?: TDefaults;
  /** Stop at the first argument that belongs to no option: it and all after it are in `_`. */
  stopEarly?: boolean;
  /** Options whose value stays a text; `_` keeps the rest as texts. */
  string?: TStrings | readonly Extract<TStrings, string>[];
  /** Options that may be given several times, as a list; of others the last one counts. */
  collect?: TCollectable | readonly Extract<TCollectable, string>[];
  /** Options that `--no-NAME` sets to false. */
  negatable?: TNegatable | readonly Extract<TNegatable, string>[];
  /** Called for each argument that is not declared; `false` leaves it out. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}
