"""What Triton has and this has not: clients get the reason instead of "Not Found"."""

MEMORY = "shared memory is off here: replicas may run on other machines than their clients"
SETTINGS = "these settings can't be changed over the network here"
PATHS = {
    "/v2/systemsharedmemory/{rest:path}": MEMORY,
    "/v2/cudasharedmemory/{rest:path}": MEMORY,
    "/v2/trace/setting": SETTINGS,
    "/v2/models/{model}/trace/setting": SETTINGS,
    "/v2/logging": SETTINGS,
}
