#define PIGGY_UAPI 1
