/* Says which architecture it was compiled for, and waits for its end; with an argument it only says. */
#include <signal.h>
#include <stdio.h>

#if defined(__x86_64__)
#define ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
#elif defined(__arm__)
#define ARCHITECTURE "arm"
#endif

int main(int count, char **arguments) {
  sigset_t ends;
  int which;
  (void)arguments;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, NULL);
  puts("built for " ARCHITECTURE);
  fflush(stdout);
  return count > 1 ? 0 : sigwait(&ends, &which);
}
