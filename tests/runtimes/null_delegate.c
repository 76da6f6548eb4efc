/* A TFLite delegate that takes no node: the plugin interface of external_delegate, nothing else.
   It notes in the file of its option "log" that it was created and asked. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct delegate; /* TfLiteDelegate of tflite/core/c/common.h, field by field */
struct delegate {
  void* data;
  int (*prepare)(void* context, struct delegate* self);
  void* copy_from_buffer;
  void* copy_to_buffer;
  void* free_buffer;
  int64_t flags;
  void* builder;
};

static void note(const char* path, const char* text) {
  FILE* file = fopen(path, "a");
  if (file == NULL) return;
  fputs(text, file);
  fclose(file);
}

static int prepare(void* context, struct delegate* self) {
  (void)context;
  note(self->data, "prepared\n");
  return 0; /* kTfLiteOk, without a node replaced */
}

struct delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                               void (*report)(const char*)) {
  struct delegate* self = calloc(1, sizeof *self);
  (void)report;
  if (self == NULL) return NULL;
  for (size_t i = 0; i < count; ++i)
    if (strcmp(keys[i], "log") == 0) self->data = strdup(values[i]);
  if (self->data == NULL) return NULL;
  self->prepare = prepare;
  note(self->data, count == 1 ? "created with 1 option\n" : "created with other options\n");
  return self;
}

void tflite_plugin_destroy_delegate(struct delegate* self) {
  free(self->data);
  free(self);
}
