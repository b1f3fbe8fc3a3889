/* The machine that all processes share: one file, which Python writes (layout.py) and every process maps.
 *
 * Boards are data. Numbers are 32 bits wide, so that nothing is padded and both sides agree on each offset.
 */
#pragma once

#include "nvml.h"

#include <stddef.h>

enum { GPUS = 16, CUTS = 18, PLACES = 8, INSTANCES = 8, COMPUTES = 8, FAULTS = 8, AMOUNTS = 6 };
enum { PROCESSES = 4, METRICS = 8, FIELDS = 8, XIDS = 128 };

/* What a handle points at. An instance that was destroyed is NOTHING. */
enum kind { NOTHING = 0, GPU = 1, GPU_INSTANCE = 2, COMPUTE_INSTANCE = 4 };

/* One way to cut a board. Amounts: compute slices, then copy, decode, encode, JPEG and OFA engines. */
struct cut {
    uint32_t index, id, limit, multiprocessors, memory_mib;
    uint32_t amounts[AMOUNTS];
    uint32_t place_count;
    nvmlGpuInstancePlacement_t places[PLACES];
    char name[96];
};

/* What a process does on a device: each list of processes is of one kind, and a process may be in several. */
enum { COMPUTES_THERE = 1, DRAWS_THERE = 2, COMPUTES_BY_MPS = 4 };
struct process {
    uint32_t pid, does, memory_mib, sm_percent;
};

/* What a device does now, figure by figure. Metrics are GPM's, in the machine's order, in thousandths of a percent. */
struct load {
    uint32_t gpu_percent, memory_percent, milliwatts, celsius, memory_mib;
    uint32_t metrics[METRICS];
    uint32_t process_count;
    struct process processes[PROCESSES];
};

struct compute {
    uint32_t kind, id, profile, mig_index, start;
    char uuid[64];
    struct load load;
};

struct instance {
    uint32_t kind, id, cut;
    nvmlGpuInstancePlacement_t place;
    struct compute computes[COMPUTES];
};

/* The next `calls` calls of a function, or of any if it has no name, take that long and then return that code. */
struct fault {
    char function[64];
    uint32_t code, calls, delay_ms;
    uint32_t met; /* how many calls met it so far */
};

/* What the GPU answers for a field. A field of no type is not offered. */
struct field {
    uint32_t id, type, value;
};

/* An XID, and the GPU instance that it is about: NVML's "no instance" for the whole GPU. */
struct xid {
    uint32_t number, instance;
};

/* How the GPU is. Of the XIDs ever reported the last ones are kept. Of the links the first ones are down. */
struct health {
    struct field fields[FIELDS];
    uint32_t links, links_down, clock_reasons;
    uint32_t reported;
    struct xid xids[XIDS];
};

struct gpu {
    uint32_t kind;
    char address[16], name[96], uuid[64];
    uint32_t device_id, minor, architecture, capability_major, capability_minor, memory_mib, cores;
    uint32_t resetless, busy;
    uint32_t mode, pending;
    uint32_t created; /* compute instances ever made */
    uint32_t cut_count;
    struct cut cuts[CUTS];
    struct instance instances[INSTANCES];
    struct fault faults[FAULTS];
    struct health health;
    struct load load;
};

struct machine {
    uint32_t loads; /* how often the kernel module was loaded */
    uint32_t loaded;
    uint32_t cuda_version;
    char driver_version[80];
    uint32_t metrics[METRICS]; /* their numbers in GPM */
    uint32_t event_sets, samples; /* that somebody has and did not give back */
    uint32_t gpu_count;
    struct gpu gpus[GPUS];
};

/* Take the machine for a call that is about no GPU. After NVML_SUCCESS the caller must leave(). */
nvmlReturn_t enter_driver(void);

/* Take the machine for a call about this GPU, after meeting the GPU's faults; as enter_driver(). */
nvmlReturn_t enter_gpu(const char *function, struct gpu *gpu);

/* The GPU that the handle belongs to, entered; NULL and a code if the handle is of no such kind, or of what is gone. */
struct gpu *enter(const char *function, const void *handle, unsigned kinds, nvmlReturn_t *code);

/* Give the machine back and return the code. */
nvmlReturn_t leave(nvmlReturn_t code);

/* The GPU at that address in any of its spellings, or NULL. Call it with the machine taken or not: addresses never change. */
struct gpu *gpu_at(const char *address);

/* The machine itself, for what is no GPU's. */
struct machine *whole_machine(void);

/* A 32-bit number of a GPU, by its place in `struct gpu`. */
nvmlReturn_t give_number(const char *function, nvmlDevice_t device, size_t offset, unsigned *number);

/* The GPU instance that the compute instance is in. */
struct instance *instance_of(struct gpu *gpu, const struct compute *compute);

/* The machine's clock, in microseconds since 1970. */
unsigned long long now_us(void);

/* Copy a text into a caller's buffer of that size. */
nvmlReturn_t give_text(char *buffer, unsigned size, const char *text);
