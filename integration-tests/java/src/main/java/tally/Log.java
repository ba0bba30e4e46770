package tally;

import java.time.LocalTime;
import java.time.temporal.ChronoUnit;

/** Standard output speaks to the harness; standard error keeps what is needed to trace a wrong result to its writer. */
final class Log {
    private Log() {}

    static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static void line(String line) {
        System.err.println(LocalTime.now().truncatedTo(ChronoUnit.MILLIS) + " " + line);
    }
}
