import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.DebeziumEngine.RecordCommitter;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.connect.source.SourceRecord;

/**
 * Lets Debezium's embedded engine read until so many records have come, throws them away, and says how many seconds passed from its
 * first batch to the last record. Records stay objects of Java: nothing is serialized. Started by debezium-reference.ts as
 * {@code java DebeziumReference.java <expected records> <property>=<value> …}.
 */
public final class DebeziumReference {
  /** Without a batch for so long it is stuck. */
  private static final long SILENCE_SECONDS = 120;

  private static final CompletableFuture<Void> ended = new CompletableFuture<>();
  private static volatile long count;
  private static long firstNanos;
  private static volatile long lastNanos;

  public static void main(String[] args) throws Exception {
    long expected = Long.parseLong(args[0]);
    Properties properties = new Properties();
    for (int index = 1; index < args.length; index++) {
      int equals = args[index].indexOf('=');
      properties.setProperty(args[index].substring(0, equals), args[index].substring(equals + 1));
    }
    DebeziumEngine<RecordChangeEvent<SourceRecord>> engine =
        DebeziumEngine.create(ChangeEventFormat.of(Connect.class))
            .using(properties)
            .using((isSuccess, message, error) -> ended.completeExceptionally(new IllegalStateException(message, error)))
            .notifying((records, committer) -> take(records, committer, expected))
            .build();
    ExecutorService executor = Executors.newSingleThreadExecutor();
    executor.execute(engine);
    int exitCode = 0;
    try {
      awaitEnd();
      if (count != expected) throw new IllegalStateException(count + " records came instead of " + expected);
      System.out.printf(Locale.ROOT, "seconds %.3f%n", (lastNanos - firstNanos) / 1e9);
      System.out.flush();
    } catch (Exception error) {
      error.printStackTrace();
      exitCode = 1;
    }
    // The engine's threads would keep the process; how long they take to end is no part of what is measured.
    Runtime.getRuntime().halt(exitCode);
  }

  private static void take(List<RecordChangeEvent<SourceRecord>> records, RecordCommitter<RecordChangeEvent<SourceRecord>> committer, long expected) throws InterruptedException {
    if (count == 0) firstNanos = System.nanoTime();
    // The last record's position is that of the batch.
    committer.markProcessed(records.get(records.size() - 1));
    committer.markBatchFinished();
    lastNanos = System.nanoTime();
    count += records.size();
    if (count >= expected) ended.complete(null);
  }

  private static void awaitEnd() throws Exception {
    for (long before = -1; ; before = count) {
      try {
        ended.get(SILENCE_SECONDS, TimeUnit.SECONDS);
        return;
      } catch (TimeoutException error) {
        if (count == before) throw new IllegalStateException("nothing came for " + SILENCE_SECONDS + " s after " + count + " records", error);
      }
    }
  }
}
