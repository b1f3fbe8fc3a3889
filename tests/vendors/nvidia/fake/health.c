/* How GPUs are: fields, clocks, and the XIDs that event sets tell of. */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

enum { NO_INSTANCE = 0xffffffff };
static const unsigned long long xid_event = 8, supported_events = 1 | 2 | 8;

/* A process's own: up to which report it has been told of each GPU that it registered for. */
struct event_set {
    struct {
        struct gpu *gpu;
        uint32_t told;
    } watched[GPUS];
};

/* Only the member of the answer's type is written: a client that reads another one finds rubbish in the rest. */
static void answer(nvmlFieldValue_t *asked, uint32_t type, uint32_t value)
{
    asked->nvmlReturn = NVML_SUCCESS;
    asked->valueType = type;
    memset(&asked->value, 0xa5, sizeof asked->value);
    if (type == NVML_VALUE_TYPE_UNSIGNED_LONG_LONG)
        asked->value.ullVal = value;
    else
        asked->value.uiVal = value;
}

static void answer_field(const struct gpu *gpu, nvmlFieldValue_t *asked)
{
    const struct health *health = &gpu->health;
    asked->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    if (asked->fieldId == NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED)
        answer(asked, NVML_VALUE_TYPE_UNSIGNED_INT, gpu->resetless);
    else if (asked->fieldId == NVML_FI_DEV_NVLINK_GET_STATE && asked->scopeId < health->links &&
             gpu->architecture >= NVML_DEVICE_ARCH_HOPPER) {
        /* A link without traffic sleeps, which is not down. */
        uint32_t up = asked->scopeId % 2 ? NVML_NVLINK_STATE_SLEEP : NVML_NVLINK_STATE_ACTIVE;
        answer(asked, NVML_VALUE_TYPE_UNSIGNED_INT,
               asked->scopeId < health->links_down ? NVML_NVLINK_STATE_INACTIVE : up);
    }
    for (int i = 0; i < FIELDS; i++)
        if (health->fields[i].type && health->fields[i].id == asked->fieldId)
            answer(asked, health->fields[i].type, health->fields[i].value);
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    for (int i = 0; i < count; i++)
        answer_field(gpu, &values[i]);
    return leave(NVML_SUCCESS);
}

/* Of any GPU; the links of those before Hopper do not sleep. */
API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, nvmlEnableState_t *state)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    if (link >= gpu->health.links)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *state = link >= gpu->health.links_down;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    nvmlReturn_t code;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    *reasons = gpu->health.clock_reasons;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    nvmlReturn_t code;
    if (!enter(__func__, device, GPU, &code))
        return code;
    *types = supported_events;
    return leave(NVML_SUCCESS);
}

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    *set = calloc(1, sizeof(struct event_set));
    whole_machine()->event_sets++;
    return leave(NVML_SUCCESS);
}

/* What was reported before is nobody's news. */
API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                          nvmlEventSet_t handle)
{
    nvmlReturn_t code;
    struct event_set *set = handle;
    struct gpu *gpu = enter(__func__, device, GPU, &code);
    if (!gpu)
        return code;
    if (!set || !types)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (types & ~supported_events)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    size_t number = (size_t)(gpu - whole_machine()->gpus);
    if (types & xid_event && !set->watched[number].gpu) {
        set->watched[number].gpu = gpu;
        set->watched[number].told = gpu->health.reported;
    }
    return leave(NVML_SUCCESS);
}

/* The oldest report of the GPU that the set has not told of; TIMEOUT if there is none. */
static nvmlReturn_t tell(struct gpu *gpu, uint32_t *told, nvmlEventData_t *data)
{
    const struct health *health = &gpu->health;
    if (*told == health->reported)
        return NVML_ERROR_TIMEOUT;
    if (health->reported - *told > XIDS)
        *told = health->reported - XIDS;
    const struct xid *xid = &health->xids[(*told)++ % XIDS];
    *data = (nvmlEventData_t){
        .device = gpu,
        .eventType = xid_event,
        .eventData = xid->number,
        .gpuInstanceId = xid->instance,
        .computeInstanceId = NO_INSTANCE,
    };
    return NVML_SUCCESS;
}

/* Nobody may wait here: see session.py on why a wait would keep NVML from being initialised anew. */
API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t handle, nvmlEventData_t *data, unsigned timeout_ms)
{
    struct event_set *set = handle;
    if (!set || timeout_ms)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < GPUS; i++) {
        struct gpu *gpu = set->watched[i].gpu;
        nvmlReturn_t code = gpu ? enter_gpu(__func__, gpu) : NVML_ERROR_TIMEOUT;
        if (code == NVML_SUCCESS)
            code = leave(tell(gpu, &set->watched[i].told, data));
        if (code != NVML_ERROR_TIMEOUT)
            return code;
    }
    return NVML_ERROR_TIMEOUT;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    nvmlReturn_t code = enter_driver();
    if (code != NVML_SUCCESS)
        return code;
    if (!set)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    free(set);
    whole_machine()->event_sets--;
    return leave(NVML_SUCCESS);
}
