/* The first process of a pod, which only holds its namespaces: static, because its image has nothing else. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { _exit(0); }

static void reap(int number) {
	while (waitpid(-1, 0, WNOHANG) > 0);
}

int main(void) {
	signal(SIGINT, end);
	signal(SIGTERM, end);
	signal(SIGCHLD, reap);
	for (;;) pause();
}
