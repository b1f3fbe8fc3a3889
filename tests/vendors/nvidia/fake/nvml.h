/* What NVML's clients see: its types and codes, as laid out by nvml.h of the CUDA toolkit. */
#pragma once

#include <stdint.h>

#define API __attribute__((visibility("default")))

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_IN_USE = 19,
    NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

typedef enum { NVML_FEATURE_DISABLED = 0, NVML_FEATURE_ENABLED = 1 } nvmlEnableState_t;

enum {
    NVML_INIT_FLAG_NO_GPUS = 1,
    NVML_FI_DEV_NVLINK_GET_STATE = 165,
    NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED = 184,
    NVML_VALUE_TYPE_UNSIGNED_INT = 1,
    NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
    NVML_NVLINK_STATE_INACTIVE = 0,
    NVML_NVLINK_STATE_ACTIVE = 1,
    NVML_NVLINK_STATE_SLEEP = 2,
    NVML_DEVICE_ARCH_HOPPER = 9,
    NVML_TEMPERATURE_GPU = 0,
    NVML_GPM_SUPPORT_VERSION = 1,
    NVML_GPM_METRICS_GET_VERSION = 1,
    NVML_GPU_INSTANCE_PROFILE_COUNT = 18,
    NVML_COMPUTE_INSTANCE_PROFILE_COUNT = 9,
    NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED = 0,
};

typedef void *nvmlDevice_t; /* a GPU, or a MIG device */
typedef void *nvmlGpuInstance_t;
typedef void *nvmlComputeInstance_t;
typedef void *nvmlEventSet_t;
typedef void *nvmlGpmSample_t;

typedef struct {
    char busIdLegacy[16];
    uint32_t domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    uint32_t version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    uint32_t gpu, memory;
} nvmlUtilization_t;

/* One version's layout only: a driver gave out another one for a while, and took it back. */
typedef struct {
    uint32_t pid;
    unsigned long long usedGpuMemory;
    uint32_t gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    uint32_t pid;
    unsigned long long timeStamp;
    uint32_t smUtil, memUtil, encUtil, decUtil;
} nvmlProcessUtilizationSample_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    uint32_t gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    uint32_t version, isSupportedDevice;
} nvmlGpmSupport_t;

typedef struct {
    uint32_t metricId, nvmlReturn;
    double value;
    struct {
        const char *shortName, *longName, *unit;
    } metricInfo;
} nvmlGpmMetric_t;

/* How many metrics there is room for depends on the client's header; numMetrics says how many are asked for. */
typedef struct {
    uint32_t version, numMetrics;
    nvmlGpmSample_t sample1, sample2;
    nvmlGpmMetric_t metrics[];
} nvmlGpmMetricsGet_t;

typedef struct {
    uint32_t fieldId, scopeId;
    int64_t timestamp, latencyUsec;
    uint32_t valueType;
    uint32_t nvmlReturn;
    union {
        double dVal;
        uint32_t uiVal;
        uint64_t ullVal;
    } value;
} nvmlFieldValue_t;

typedef struct {
    uint32_t start, size;
} nvmlGpuInstancePlacement_t;

typedef struct {
    uint32_t version, id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount;
    uint32_t copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
    unsigned long long memorySizeMB;
    char name[96];
} nvmlGpuInstanceProfileInfo_v2_t;

typedef struct {
    uint32_t version, id, sliceCount, instanceCount, multiprocessorCount;
    uint32_t copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
    unsigned long long memorySizeMB;
    char name[96];
    uint32_t capabilities;
} nvmlGpuInstanceProfileInfo_v3_t;

typedef struct {
    nvmlDevice_t device;
    uint32_t id, profileId;
    nvmlGpuInstancePlacement_t placement;
} nvmlGpuInstanceInfo_t;

typedef struct {
    uint32_t version, id, sliceCount, instanceCount, multiprocessorCount;
    uint32_t sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount;
    uint32_t sharedOfaCount;
    char name[96];
} nvmlComputeInstanceProfileInfo_v2_t;

typedef nvmlGpuInstancePlacement_t nvmlComputeInstancePlacement_t;

typedef struct {
    nvmlDevice_t device;
    nvmlGpuInstance_t gpuInstance;
    uint32_t id, profileId;
    nvmlComputeInstancePlacement_t placement;
} nvmlComputeInstanceInfo_t;

#define VERSION_OF(type, number) ((uint32_t)(sizeof(type) | (number) << 24))
