/* A wall clock that is wrong by as many seconds as the file in $MIDGE_TEST_CLOCK says. */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = syscall(SYS_clock_gettime, clock, time);
	const char *path = getenv("MIDGE_TEST_CLOCK");
	char text[24] = "";

	if (result == 0 && clock == CLOCK_REALTIME && path) {
		int file = open(path, O_RDONLY | O_CLOEXEC);

		if (file >= 0) {
			if (read(file, text, sizeof(text) - 1) > 0)
				time->tv_sec += atol(text);
			close(file);
		}
	}
	return result;
}
