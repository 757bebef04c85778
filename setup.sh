#!/bin/sh
# Makes sure of what Cairn needs, Deno and a Vulkan driver, then runs one of its tasks.
# Where all is there it says nothing; what it installs it says on stderr.
set -u

minimum=2.9.0

usage() {
  cat <<'TEXT'
Usage: sh setup.sh TASK [ARGUMENTS]

Makes sure of Deno and a Vulkan driver, then runs the task:

  ok      check everything: format, lint, types, docs, tests, packaging
  test    run the tests; takes the filters of deno test
  cairn   the command line: sh setup.sh cairn --help
  demo    a text, written by a small model that comes along
  bench   measure kernels and models on this machine
  soak    run for long and watch memory and results

With Deno and a driver in place, deno task TASK [ARGUMENTS] is the same.
TEXT
}

say() {
  printf 'setup: %s\n' "$*" >&2
}

stop() {
  say "$*"
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# at_least VERSION MINIMUM, both as 1.2.3; what follows the numbers (-rc.1) does not count.
at_least() {
  saved=$IFS
  IFS=.
  # Split on purpose.
  # shellcheck disable=SC2046,SC2086
  set -- ${1%%[!0-9.]*} $2
  IFS=$saved
  [ $# -eq 6 ] || return 1
  [ "$1" -eq "$4" ] || { [ "$1" -gt "$4" ]; return; }
  [ "$2" -eq "$5" ] || { [ "$2" -gt "$5" ]; return; }
  [ "$3" -ge "$6" ]
}

# usable FILE: whether it is a Deno of at least the minimum; $deno is then the program itself, without npm's wrapper.
usable() {
  [ -n "$1" ] && [ -x "$1" ] || return 1
  answer=$("$1" eval --no-config 'console.log(Deno.version.deno, Deno.execPath())' 2>/dev/null </dev/null) ||
    return 1
  at_least "${answer%% *}" "$minimum" || return 1
  deno=${answer#* }
}

npm_bin() {
  has npm && prefix=$(npm prefix -g 2>/dev/null </dev/null) && [ -n "$prefix" ] && printf '%s/bin' "$prefix"
}

find_deno() {
  usable "$(command -v deno)" ||
    usable "${DENO_INSTALL:-${HOME:-}/.deno}/bin/deno" ||
    usable "${HOME:-}/.cairn/bin/deno"
}

# install_deno [--prefix FOLDER]
install_deno() {
  npm install -g --no-fund --no-audit --no-update-notifier --loglevel=error "$@" "deno@^$minimum" >&2 </dev/null
}

ensure_deno() {
  find_deno && return
  manual="install Deno $minimum or newer (https://docs.deno.com/runtime/getting_started/installation)"
  has npm || stop "Found neither Deno $minimum or newer nor npm to get it with; $manual and run this again"

  global=$(npm_bin)
  # Another installation may have left one there that is not on PATH.
  usable "$global/deno" && return
  if [ -n "$global" ] && [ -w "$global" ] && [ -w "${global%/bin}/lib" ]; then
    say "installing Deno for all users: npm install -g deno@^$minimum"
    install_deno && usable "$global/deno" && return
    say "npm could not install Deno in ${global%/bin}"
  fi
  [ -n "${HOME:-}" ] || stop "There is no home folder to install Deno in; $manual and run this again"
  say "installing Deno in $HOME/.cairn: npm install -g --prefix $HOME/.cairn deno@^$minimum"
  install_deno --prefix "$HOME/.cairn" && usable "$HOME/.cairn/bin/deno" && return
  stop "npm could not install Deno $minimum or newer; $manual and run this again"
}

# Whether Deno gets an adapter. On Linux it has to be Vulkan's: where that is missing Deno may fall back to OpenGL,
# which lacks what the kernels need.
answers() (
  if [ "$(uname -s)" = Linux ]; then
    export DENO_WEBGPU_BACKEND="${DENO_WEBGPU_BACKEND:-vulkan}"
  fi
  "$deno" eval --no-config 'Deno.exit(await navigator.gpu.requestAdapter() ? 0 : 1)' >/dev/null 2>&1 </dev/null
)

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# apt_get ARGUMENTS...; asks nothing, neither a question nor a password.
apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >&2 </dev/null
}

ensure_vulkan() {
  answers && return
  loaders='libvulkan1 libegl1 libglvnd0 libglx0 libgl1'
  if [ -e /proc/driver/nvidia ]; then packages=$loaders; else packages=mesa-vulkan-drivers; fi
  if has apt-get && { [ "$(id -u)" -eq 0 ] || { has sudo && sudo -n true 2>/dev/null </dev/null; }; }; then
    say "no Vulkan driver answers; installing $packages"
    # Lists that cannot all be fetched may still do.
    apt_get update
    # Split on purpose.
    # shellcheck disable=SC2086
    apt_get install -y --no-install-recommends $packages && answers && return
  fi
  stop "No Vulkan driver answers." \
    "For the CPU install mesa-vulkan-drivers, as root: apt-get install mesa-vulkan-drivers;" \
    "on a GPU server the card's own driver and $loaders, all of them." \
    "Then run this again, or, for what needs no GPU, run: $deno task TASK"
}

case ${1:-} in
  '' | -h | --help | help)
    usage
    exit
    ;;
esac

# Without a folder there Deno's GPU start-up prints a complaint that means nothing on a machine without a desktop.
if [ ! -d "${XDG_RUNTIME_DIR:-}" ]; then
  XDG_RUNTIME_DIR=${TMPDIR:-/tmp}
  export XDG_RUNTIME_DIR
fi
export DENO_NO_UPDATE_CHECK=1
# Without OpenGL: Mesa's library of it can crash a test process that ends, after its last test. With NVIDIA's driver OpenGL
# stays: it keeps the Vulkan driver loaded, which cannot be unloaded and loaded again more than some thirty times.
if [ ! -e /proc/driver/nvidia ] && [ ! -e /dev/nvidiactl ]; then
  export DENO_WEBGPU_BACKEND="${DENO_WEBGPU_BACKEND:-vulkan,metal,dx12}"
fi

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || stop "Cannot enter the folder of $0"
ensure_deno
ensure_vulkan

# What the task starts finds the same Deno. The task begins in the project's root and finds the caller's folder in
# INIT_CWD.
PATH=$(dirname -- "$deno"):$PATH
export PATH
exec "$deno" task --quiet --config "$root/deno.json" "$@"
